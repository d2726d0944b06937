"""Command: record how classifiers' weights move in training on real data, for the methods that match trajectories.

A folder of experts holds one safetensors file each, expert-00000.safetensors and so on: every parameter (and buffer)
by name, stacked over epochs, (E + 1, *shape), the initial weights first. index.json says what they were trained on.
"""

import datetime
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple, TypedDict

import torch
from msgspec import Meta
from safetensors import SafetensorError, safe_open

from core_dd import cli, files, records
from core_dd.config import load_config, to_dict, to_yaml
from core_dd.data.images import ImageData
from core_dd.data.preprocess import Preprocess
from core_dd.errors import InputError, require
from core_dd.judge.networks import build_network
from core_dd.judge.training import State, Training, one
from core_dd.progress import Progress
from core_dd.rng import stream
from core_dd.run import Run, find_folder
from core_dd.sets.distilled import read_tensors, versions, write_tensors
from core_dd.speed import peak_mib, prepare_device
from matching_dd.options import ExpertsConfig, MatchingConfig

_INDEX, _TRAJECTORY = "index.json", "trajectory.safetensors"


class _Recorded(TypedDict):
    """What is used of the index of recorded experts; of which data they are stands beside it."""

    network: str
    preprocess: str
    epochs: Annotated[int, Meta(ge=1)]
    files: list[str]


class Experts:
    """The recorded experts of a folder; weights are read when asked for, those of one expert and epoch at a time.

    Args:
        folder: as the command writes it; may still grow.
        data, network, preprocess: of the distillation; the experts' must be the same, down to the training images.
        config: of the distillation, by which messages say how to record some; default: by the data's name.

    Attributes:
        epochs: E.
        origin: what tells these experts from others, for `core_dd.run.Run.open`: the first one's digest, and how
            many there are.

    Raises:
        InputError: if the folder is missing, holds no finished expert, foreign ones or a damaged file.
    """

    def __init__(
        self,
        folder: str | Path | None,
        data: ImageData,
        network: str,
        preprocess: str,
        config: MatchingConfig | None = None,
    ) -> None:
        spec = config.data if config else data.name
        how = f"Record some: gendd experts --data {spec} --network {network} --preprocess {preprocess}"
        if config:
            same = ("image_size", "test_fraction", "limit_per_class", "val_fraction")
            how += "".join(f" --{name} {value}" for name in same if (value := getattr(config, name)))
            how += f" --seed {config.seed}" if config.val_fraction or config.limit_per_class else ""
        require(folder is not None, f"give the folder of recorded experts: --experts FOLDER. {how}.")
        self.folder = Path(folder)
        require(
            (self.folder / _INDEX).is_file(), f"no experts at {folder}: there is no {_INDEX}. {how} --out {folder}."
        )
        index = records.read(self.folder / _INDEX, _Recorded, f"It is not one of recorded experts. {how}.")
        data.check_origin(index, f"{folder} holds experts", f"{how}.")
        for name, own in (("network", network), ("preprocess", preprocess)):
            require(
                index[name] == own,
                f"{folder} holds experts with {name} {index[name]}, but the distillation has {own}. "
                f"Pass --{name} {index[name]}, or record others: gendd experts --{name} {own}.",
            )
        self.files, self.epochs = [self.folder / name for name in index["files"]], index["epochs"]
        require(
            len(self.files) > 0,
            f"{folder} holds no finished expert yet. Go on with the command that began it, and --resume.",
        )
        for name in index["files"]:
            require(name == Path(name).name, f"{self.folder / _INDEX} names '{name}', which is no file beside it.")
            require(index["files"].count(name) == 1, f"{self.folder / _INDEX} lists '{name}' twice.")
        weights = build_network(network, data.shape, data.num_classes).state_dict()
        shapes = {name: (self.epochs + 1, *tensor.shape) for name, tensor in weights.items()}
        for file in self.files:
            self._check(file, shapes)
        with self.files[0].open("rb") as first:
            digest = hashlib.file_digest(first, "blake2b").hexdigest()[:16]
        self.origin = {"first_expert": digest, "experts": str(len(self.files))}  # of which every iteration draws one

    def __len__(self) -> int:
        return len(self.files)

    def _check(self, file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse a file that is missing or cut, or of other epochs or another network than the index says; reads no
        weights."""
        try:
            with safe_open(file, framework="pt") as content:
                names = content.keys()
                found = {name: tuple(content.get_slice(name).get_shape()) for name in names}
                halves = [name for name in names if content.get_slice(name).get_dtype() not in ("F32", "I64")]
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"cannot read {file}: {error}. Record the experts anew, into another folder.") from None
        lengths = {shape[:1] for shape in found.values()}
        require(lengths == {(self.epochs + 1,)}, f"{file} is no trajectory of {self.epochs} epochs, as {_INDEX} says.")
        require(found == shapes, f"{file} is no trajectory of the network that {_INDEX} says: its tensors are others.")
        require(not halves, f"{file}: {''.join(halves[:1])} is not of 32 bits, as experts are recorded. Record anew.")

    def weights(self, expert: int, epoch: int) -> State:
        """Parameters and buffers by name, on the CPU, after `epoch` of 0..E passes.

        Raises:
            InputError: if they are not finite.
        """
        file = self.files[expert]
        with safe_open(file, framework="pt") as content:
            names = content.keys()
            state = {name: content.get_slice(name)[epoch : epoch + 1][0] for name in names}
        finite = all(bool(torch.isfinite(tensor).all()) for tensor in state.values())
        require(finite, f"{file} has weights that are not finite after epoch {epoch}. Record the experts anew.")
        return state


def record(config: ExpertsConfig, data: ImageData | None = None) -> Path:
    """Train the experts as `config` says (on `data`, where it is loaded already), and return their folder.

    Raises:
        InputError: whatever does not fit, before any work; a loss that is not finite.
    """
    # Whatever can be wrong is found before any work.
    data, device = data or config.load_data(config.seed, config.val_fraction), prepare_device(config.device)
    find_folder(config.out, _run_name(config, data), config.resume)
    config, preprocess = _resolved(config, device), Preprocess.fit(data, config.preprocess)
    groups = [range(i, min(i + config.at_once, config.experts)) for i in range(0, config.experts, config.at_once)]
    begin(config, data, preprocess, groups[0], device)
    with Run.open(config, _run_name(config, data), data.origin) as run:
        # A resumed run continues in the group, and the epoch of it, where its last checkpoint was.
        done, folder = run.last() or (0, None)
        first, within = divmod(done, config.epochs)
        if folder is not None:
            run.say(f"resumed at epoch {within} of group {first} from {folder}")
        progress = Progress("experts", len(groups) * config.epochs, done, unit="epoch")
        for number, group in enumerate(groups[first:], first):
            training = begin(config, data, preprocess, group, device)
            trajectory = [snapshot(training)]
            if number == first and within:
                trajectory = _restore(training, folder / _TRAJECTORY)

            # Train, and record the weights after every epoch.
            for epoch in range(len(trajectory), config.epochs + 1):
                step, last = number * config.epochs + epoch, epoch == config.epochs
                loss = _train_epoch(training, epoch)
                run.check(step, loss=loss)  # stops on a loss that is not finite
                if last or epoch % config.log_every == 0:
                    run.log(step, loss=loss)
                trajectory.append(snapshot(training))
                progress.update()
                if last:
                    write_group(run.folder, group, trajectory, config, data)
                if last or epoch % config.checkpoint_every == 0:
                    with run.checkpoint(step) as place:
                        if not last:
                            write_tensors(place / _TRAJECTORY, _stacked(trajectory), {})
        progress.close()
        run.say(f"{run.folder}: {config.experts} experts of {data.name}, {config.epochs} epochs each")
        return run.folder


def begin(
    config: ExpertsConfig, data: ImageData, preprocess: Preprocess, group: range, device: torch.device
) -> Training:
    """The experts of a group, untrained; which others are in it makes no difference to any of them. They begin and go
    on otherwise than the judge's classifiers of the same seed."""
    return Training(
        data.train_images,
        data.train_labels,
        data,
        protocol=config.protocol(),
        network=config.network,
        runs=group,
        seed=stream(config.seed, "experts").initial_seed(),
        device=device,
        preprocess=preprocess,
        bf16=config.bf16,
    )


def _train_epoch(training: Training, epoch: int) -> float:
    """One pass over the real data, 1..E; returns the mean loss of all experts and steps."""
    per_pass = training.plan.per_pass
    losses = [training.step(step) for step in range((epoch - 1) * per_pass, epoch * per_pass)]
    return torch.stack(losses).mean().item()


def snapshot(training: Training) -> State:
    """Parameters and buffers of a group, (R, ...), on the CPU."""
    return {name: tensor.cpu().clone() for name, tensor in (training.params | training.buffers).items()}


def _stacked(trajectory: Sequence[State]) -> State:
    """Snapshots as one tensor per name, the epochs first."""
    return {name: torch.stack([state[name] for state in trajectory]) for name in trajectory[0]}


def _restore(training: Training, path: Path) -> list[State]:
    """Continue from a checkpoint: the snapshots so far, the last of which becomes the experts' weights."""
    tensors, _ = read_tensors(path)
    with records.restoring(str(path), "Remove this checkpoint, or record anew, into another folder."):
        trajectory = [one(tensors, epoch) for epoch in range(len(next(iter(tensors.values()))))]
        for name, tensor in (training.params | training.buffers).items():
            tensor.copy_(records.same_shape(trajectory[-1][name], tensor, name))
    training.optimizer = torch.optim.SGD(training.params.values())  # plain: it has no state of its own
    return trajectory


def write_group(
    folder: Path, group: range, trajectory: Sequence[State], config: ExpertsConfig, data: ImageData
) -> None:
    """A file per expert of a group that is finished, then the index."""
    tensors = _stacked(trajectory)
    names = [_name(expert) for expert in range(group.stop)]
    index = {
        **data.origin,
        "network": config.network,
        "preprocess": config.preprocess,
        "epochs": config.epochs,
        "config": to_dict(config),
        "versions": versions(),
        "files": names,
    }
    for r, expert in enumerate(group):
        write_tensors(folder / names[expert], {name: tensor[:, r] for name, tensor in tensors.items()}, {})
    files.write_json(folder / _INDEX, index)


def content(folder: str | Path) -> str:
    """What tells the experts in a folder from others that lay or will lie there: 16 hex digits of its index and the
    first of them; empty where there are none."""
    files = [Path(folder) / _INDEX, Path(folder) / _name(0)]
    found = [hashlib.blake2b(file.read_bytes(), digest_size=16).digest() for file in files if file.is_file()]
    return hashlib.blake2b(b"".join(found), digest_size=8).hexdigest() if found else ""


def _name(expert: int) -> str:
    """The file of an expert."""
    return f"expert-{expert:05d}.safetensors"


def _resolved(config: ExpertsConfig, device: torch.device) -> ExpertsConfig:
    """The config with a number for `at_once`: its own, else 10 on a GPU and 1 on a CPU."""
    return replace(config, at_once=config.at_once or (10 if device.type == "cuda" else 1))


def _run_name(config: ExpertsConfig, data: ImageData) -> str:
    """What the folder is called where none is given."""
    return f"{data.name}-experts-{config.network}"


def _dry_run(config: ExpertsConfig) -> None:
    """Print the resolved config, and the disk space, memory and time to expect, measured on a few steps."""
    data, device = config.load_data(config.seed, config.val_fraction), prepare_device(config.device)
    config = _resolved(config, device)
    find_folder(config.out, _run_name(config, data), config.resume)
    found = measured(config, data)
    total = datetime.timedelta(seconds=round(found.first + found.each * found.steps))
    print(to_yaml(config), end="")
    print(f"# checked on {device}: {found.groups} group(s) of {found.group}, {found.per_pass} steps per epoch")
    host = "" if device.type == "cpu" else f", and {found.kept_mib / 1024:.2f} GiB of the host's"
    print(f"# disk: {found.bytes / 2**30:.2f} GiB; memory: {found.mib / 1024:.2f} GiB at its peak{host}")
    print(f"# time: {found.first:.1f} s to start, then {found.each:.3g} s per step: {total}")


class _Measured(NamedTuple):
    """What recording experts takes."""

    groups: int
    group: int
    """Experts in one."""
    per_pass: int
    steps: int
    """Of all groups."""
    first: float
    """Seconds of the first step, with whatever it compiles."""
    each: float
    """Seconds of every other one."""
    bytes: float
    """Of all their files."""
    mib: float
    """Memory of the device at its peak, in MiB."""
    kept_mib: float
    """What a group's weights after every epoch take, and once more to be written: of the host, whatever the device."""


def measured(config: ExpertsConfig, data: ImageData) -> _Measured:
    """What recording experts takes, by a few steps that are then lost."""
    device = prepare_device(config.device)
    config = _resolved(config, device)
    assert config.at_once is not None
    group = range(min(config.at_once, config.experts))
    training, seconds = begin(config, data, Preprocess.fit(data, config.preprocess), group, device), []
    for step in range(1 + _TRIALS):
        started = time.perf_counter()
        training.step(step % training.plan.per_pass).sum().item()
        seconds.append(time.perf_counter() - started)
    size = sum(tensor.nbytes for tensor in snapshot(training).values()) / len(group) * (config.epochs + 1)
    groups, each = -(-config.experts // len(group)), sorted(seconds[1:])[_TRIALS // 2]
    kept = 2 * size * len(group) / 2**20
    return _Measured(
        groups=groups,
        group=len(group),
        per_pass=training.plan.per_pass,
        steps=groups * training.plan.steps,
        first=seconds[0],
        each=each,
        bytes=size * config.experts,
        mib=peak_mib(device) + (kept if device.type == "cpu" else 0),
        kept_mib=kept,
    )


_TRIALS = 5


def main(argv: Sequence[str] | None = None) -> None:
    """Record experts."""
    config = load_config(ExpertsConfig, argv, prog="gendd experts")
    (_dry_run if config.dry_run else record)(config)


if __name__ == "__main__":
    cli.entry(main)
