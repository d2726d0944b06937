"""The teacher of protocols whose labels are a classifier's: trained on the real data, or read from a file."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core_dd import records
from core_dd.data.images import ImageData
from core_dd.data.preprocess import Preprocess
from core_dd.data.readers import load_tensors
from core_dd.errors import require
from core_dd.judge import training
from core_dd.judge.fidelity import kept_classifier
from core_dd.judge.protocols import Protocol
from core_dd.records import same_shape
from core_dd.sets.distilled import read_tensors
from core_dd.wrappers import unwrapped

TEACHER = Protocol(name="teacher", epochs=200, schedule="cosine", batch_size=128, lr=0.1, augment="flip_crop", runs=1)
"""How a teacher is trained on all real training images, which the papers leave to the recipes at hand: 200 passes in
batches of 128 with flip and crop, SGD with momentum 0.9, decay 0.0005 and a learning rate of 0.1 down a cosine, as
ResNets are commonly trained on CIFAR."""


def check(protocol: Protocol, file: str | None) -> None:
    """Refuse a teacher for a protocol that has none, or one that is not there, before any work.

    Raises:
        InputError: if it is so.
    """
    if file is not None:
        require(protocol.teacher is not None, f"protocol {protocol.name} has no teacher. Leave out --teacher.")
        require(Path(file).is_file(), f"no teacher at {file}: expected a file of weights of a {protocol.teacher}.")


def teacher_of(
    protocol: Protocol, data: ImageData, seed: int, device: torch.device, file: str | None = None, bf16: bool = True
) -> training.Classifiers | None:
    """The teacher of a protocol; None where it has none.

    Args:
        protocol: as it is resolved; the training of a shortened one's teacher is cut as short.
        data: the real data.
        seed: of the teacher's training.
        device: where.
        file: weights to take, a state dict of the protocol's network for images normalised by mean and standard
            deviation of `data`: safetensors, or what torch.save wrote. None: one is trained on the real training
            images, the first time, and kept in the cache folder.
        bf16: train it in bf16 where the hardware does it faster.

    Raises:
        InputError: what `check` refuses, or a file that holds no weights of that network.
    """
    check(protocol, file)
    if protocol.teacher is None:
        return None
    if file is not None:
        return _read(Path(file), protocol.teacher, data, device)
    short = {"steps": protocol.steps} if protocol.steps else {"epochs": protocol.epochs} if protocol.smoke else {}
    return kept_classifier(data, protocol.teacher, seed, device, TEACHER.shortened(**short), bf16)


def untrained(protocol: Protocol, data: ImageData, device: torch.device) -> training.Classifiers | None:
    """A teacher that knows nothing, to measure what asking it takes; None where the protocol has none."""
    if protocol.teacher is None:
        return None
    return training.Classifiers(
        *training.initialise(protocol.teacher, data, [0], 0, device), Preprocess.fit(data).to(device), [], []
    )


def said_of(
    teacher: training.Classifiers | None, protocol: Protocol, data: ImageData, file: str | None
) -> dict[str, Any]:
    """What a score says of its teacher, under that name: `network`, the `file` it is from, and its `accuracy` on the
    test images; nothing where there is none."""
    if teacher is None:
        return {}
    (accuracy,) = teacher.accuracies(data.test_images, data.test_labels)
    return {"teacher": {"network": protocol.teacher, "file": file, "accuracy": accuracy}}


def _read(path: Path, network: str, data: ImageData, device: torch.device) -> training.Classifiers:
    """The classifier whose weights a file holds."""
    content = read_tensors(path)[0] if path.suffix == ".safetensors" else load_tensors(path)
    require(isinstance(content, dict), f"{path} holds a {type(content).__name__}, expected a state dict of {network}.")
    tensors, (net, *states) = unwrapped(content), training.initialise(network, data, [0], 0, device)
    with records.restoring(str(path), f"Expected a state dict of {network} for {data.name}."):
        params, buffers = (
            {name: _alone(tensors[name], own, name).to(device) for name, own in state.items()} for state in states
        )
    finite = all(bool(tensor.isfinite().all()) for tensor in (params | buffers).values())
    require(finite, f"{path} holds weights that are not finite.")
    return training.Classifiers(net, params, buffers, Preprocess.fit(data).to(device), [], [])


def _alone(found: Any, own: Tensor, name: str) -> Tensor:
    """A tensor of a file in the shape of a single run's, (1, ...), as our files have it and others do not."""
    return same_shape(found if found.dim() == own.dim() else found[None], own, name)
