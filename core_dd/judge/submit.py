"""Command: a submission to the ECCV 2024 dataset-distillation challenge from a set, scored before it is ready.

The challenge reads FOLDER/cifar100.pt or FOLDER/tinyimagenet.pt: one bare float tensor (K x ipc, C, H, W), class by
class, already normalised with the challenge's constants; labels are implied by the order.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from core_dd import cli, files, locks
from core_dd.config import load_config
from core_dd.data import readers
from core_dd.data.images import ImageData
from core_dd.errors import require
from core_dd.judge.evaluate import Scores, evaluate
from core_dd.judge.options import SubmitConfig
from core_dd.judge.protocols import CHALLENGE
from core_dd.judge.unfinished import beside
from core_dd.sets.distilled import DistilledSet, new_meta
from core_dd.sets.formats.challenge import TARGETS, Target, normaliser, to_tensor
from core_dd.sets.learnt import warn_of


def from_tensor(path: Path, data: ImageData, target: Target) -> DistilledSet:
    """Read a submission back as the challenge does: labels by order, pixels through the inverse normalisation.

    Raises:
        InputError: if the file is damaged, or its tensor has another shape or values that are not finite.
    """
    tensor = readers.load_tensors(path)
    require(isinstance(tensor, Tensor), f"{path} holds a {type(tensor).__name__}, expected one bare tensor.")
    count = len(tensor) if tensor.ndim == 4 else 0
    require(
        tensor.dtype == torch.float32
        and tensor.shape[1:] == data.shape
        and count > 0
        and count % data.num_classes == 0,
        f"{path} holds {tensor.dtype} of shape {tuple(tensor.shape)}, expected float32 "
        f"(ipc x {data.num_classes}, {', '.join(map(str, data.shape))}).",
    )
    ipc = count // data.num_classes
    meta = new_meta(data, method="submission", ipc=ipc, seed=0)
    labels = torch.arange(data.num_classes).repeat_interleave(ipc)
    dset = DistilledSet(normaliser(target).inverse(tensor), labels, meta)
    dset.check(data, where=str(path))
    return dset


def target_of(data: ImageData, spec: str) -> Target:
    """Which of the challenge's datasets these data are.

    Raises:
        InputError: if they are none, by their content, number of classes or size.
    """
    require(
        data.name in TARGETS,
        f"{spec} is no dataset of the challenge: by its content it is {data.name}, of {data.num_classes} classes. "
        f"Give {' or '.join(TARGETS)}, or files that hold just their images, e.g. tiny_imagenet:FOLDER.",
    )
    target = TARGETS[data.name]
    require(
        (data.num_classes, data.shape) == (target.classes, target.shape),
        f"{spec} has {data.num_classes} classes and images of shape {data.shape}, but the challenge wants "
        f"{target.classes} and {target.shape} of {data.name}. Leave out image_size and give all its classes.",
    )
    return target


def submit(config: SubmitConfig) -> tuple[Path, Scores]:
    """Write the submission beside its place, read it back, check and score it; only then does it stand there. The same
    call after a kill goes on with the scoring.

    Raises:
        InputError: data that is not the challenge's, a set that does not fit, or a file that exists.
    """
    data = config.load_data(config.seed)
    target = target_of(data, config.data)
    path = Path(config.out) / target.file
    files.require_new(path)
    dset = DistilledSet.load(config.set, data, **config.told())
    dset.check(data, where=config.set)
    warn_of(dset.meta, config.set)
    tensor = to_tensor(dset, target, data.num_classes, config.track)
    with locks.own_file(path), files.atomic(path) as temporary:
        torch.save(tensor, temporary)
        handed_in = from_tensor(temporary, data, target)
        scores = evaluate(
            handed_in, data, protocol=CHALLENGE.name, runs=None, seed=config.seed, device=config.device,
            epochs=config.epochs, steps=config.iterations, bf16=config.bf16, unfinished=beside(path),
        )  # fmt: skip
        scores = scores.with_record(data={"class_names": list(data.class_names)})
        files.write_json(path.with_suffix(".scores.json"), scores.to_json())
    files.remove(beside(path))
    return path, scores


def _class_order(names: Sequence[str]) -> str:
    """Which classes the submission's blocks are, in a few words."""
    return f"its classes are in the order {', '.join(names[:3])}, ..., {names[-1]} (all in its scores.json)"


def judged_by(config: SubmitConfig, images: int) -> str:
    """What scored a submission of so many images: the protocol, and how much of it."""
    whole, taken = (
        protocol.plan(images, augmented=True).steps
        for protocol in (CHALLENGE, CHALLENGE.shortened(config.epochs, config.iterations))
    )
    return "the challenge protocol" + (f" with {taken} steps instead of {whole}" if taken != whole else "")


def main(argv: Sequence[str] | None = None) -> None:
    """Make one submission."""
    config = load_config(SubmitConfig, argv, prog="gendd submit")
    path, scores = submit(config)
    judge = judged_by(config, scores.record["set"]["images"])
    print(f"{path} is ready: read back, checked, and scored by {judge}: {scores}")
    print(_class_order(scores.record["data"]["class_names"]))


if __name__ == "__main__":
    cli.entry(main)
