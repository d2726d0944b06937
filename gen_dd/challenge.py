"""Command: from two trained models to a whole submission to the ECCV 2024 challenge, scored as its leaderboard does.

For each of its data sets a pool is drawn inside the budget; ten images per class of it are chosen for track 1, the pool
itself is handed in on track 2. Every file is written, read back, checked and scored by `core_dd.judge.submit`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from core_dd import cli, files, records
from core_dd.clock import command_start, now
from core_dd.config import load_config, to_dict
from core_dd.data.images import ImageData, load_data
from core_dd.errors import about, needed, require
from core_dd.judge import fidelity
from core_dd.judge.options import SubmitConfig
from core_dd.judge.submit import submit, target_of
from core_dd.locks import own_folder
from core_dd.report.tables import text_table
from core_dd.run import require_unoccupied
from core_dd.sets.distilled import DistilledSet
from core_dd.sets.formats.challenge import TARGETS, TRACK1_IPC
from gen_dd.options import ChallengeConfig, SampleConfig
from gen_dd.sample import run
from gen_dd.select import select
from gen_dd.weights import check_data, load_model

RESULT = "challenge.json"
"""What was found, in the folder of the submission."""

DATA = ("cifar100", "tiny_imagenet")
"""The challenge's data sets, by the options that name their models."""


_FREE = ("out", "resume", "device", "bf16")
"""Options that a resumed submission may change."""


class _Begun(TypedDict):
    """Of challenge.json, what a resumed submission needs."""

    config: dict[str, Any]
    weights: NotRequired[dict[str, str]]
    """The digests of the models', by data set; submissions of before do not say."""


@dataclass(frozen=True)
class Contestant:
    """One data set of the challenge: its name, the folder of its model and the digest of its weights, the real data and
    how they are spelled."""

    name: str
    model: str
    weights: str
    spec: str
    data: ImageData

    @property
    def file(self) -> str:
        """What the challenge calls its file."""
        return TARGETS[self.name].file


def contestant(config: ChallengeConfig, name: str) -> Contestant:
    """One data set's part, checked before any work.

    Raises:
        InputError: no model, one of other data or that the solver cannot draw with, other data than the challenge's.
    """
    folder = getattr(config, name)
    with about(f"--{name} {folder}"):
        model, card = load_model(folder)
        model.check_solver(config.solver)
        model.check_guidance(config.cfg_scale)
        spec = needed(
            getattr(config, f"{name}_data") or card.get("train", {}).get("data") or card.get("data"),
            f"the model's card does not name its data. Pass --{name}_data.",
        )
        data = load_data(spec)
        require(
            target_of(data, spec).file == TARGETS[name].file,
            f"{spec} is {data.name}, and here {name} is expected: the model of CIFAR-100 comes first.",
        )
        check_data(model, card, data, spec, f"{name}_data")
    if config.selector != "random":
        with about(f"--network {config.network}"):
            fidelity.check_features(config.network, data)
    return Contestant(name, str(folder), card["weights"], spec, data)


def challenge(config: ChallengeConfig, start: float | None = None) -> dict[str, Any]:
    """Draw, choose, write, verify and score; see `ChallengeConfig`.

    Args:
        config: what to do.
        start: when the command began, on the clock of `core_dd.clock.now`; None: now. What went by since then, its
            imports, is counted in the budget of both pools.

    Returns:
        What challenge.json holds: accuracies by track and data set, fractions, their means, and the settings.

    Raises:
        InputError: what does not fit, before any work.
    """
    startup, out = now() - (now() if start is None else start), Path(config.out)
    if not config.resume:
        require_unoccupied(out)
    settings = {name: value for name, value in to_dict(config).items() if name not in _FREE}
    begun = records.read(out / RESULT, _Begun) if (out / RESULT).exists() else _Begun(config=settings)
    for name, value in settings.items():
        before = begun["config"].get(name)
        require(
            before == value,
            f"{out} was begun with {name} {before}, now it is {value}. Resume with the same, or choose another --out.",
        )
    contestants = [contestant(config, name) for name in DATA]
    for own in contestants:
        require(
            begun.get("weights", {}).get(own.name, own.weights) == own.weights,
            f"{out} was begun with other weights in {own.model}. Resume with those, or choose another --out.",
        )
    told = {"config": settings, "weights": {own.name: own.weights for own in contestants}}
    accuracies: dict[str, dict[str, float]] = {"track1": {}, "track2": {}}
    with own_folder(out):
        for own in contestants:
            pool, chosen = out / "pools" / own.name, out / "chosen" / f"{own.name}.safetensors"
            if not (pool / "summary.txt").exists():
                run(_sampling(config, own, pool), now() - startup)
            if not (out / RESULT).exists():  # what does not fit the budget leaves nothing behind
                files.write_json(out / RESULT, told)
            if not chosen.exists():
                drawn = DistilledSet.load(pool, own.data)
                options = {"selector": config.selector, "seed": config.seed, "network": config.network}
                select(drawn, own.data, TRACK1_IPC, **options, device=config.device).save(chosen)
            for track, dset in ((1, chosen), (2, pool)):
                accuracies[f"track{track}"][own.name] = _handed_in(config, own, track, dset)
        result = {
            "accuracies": accuracies,
            "means": {track: sum(found.values()) / len(found) for track, found in accuracies.items()},
            **told,
        }
        files.write_json(out / RESULT, result)
    return result


def _sampling(config: ChallengeConfig, own: Contestant, pool: Path) -> SampleConfig:
    """How a pool is drawn."""
    return SampleConfig(
        model=own.model,
        out=str(pool),
        guide_data=own.spec,
        resume=config.resume,
        **{name: getattr(config, name) for name in config.SAMPLING},
    )


def _handed_in(config: ChallengeConfig, own: Contestant, track: int, dset: Path) -> float:
    """The accuracy of one file, which is written unless it is there."""
    folder = Path(config.out) / f"track{track}"
    scores = (folder / own.file).with_suffix(".scores.json")
    if not (folder / own.file).exists() or not scores.exists():
        path, found = submit(
            SubmitConfig(
                data=own.spec, set=str(dset), track=track, out=str(folder), epochs=config.epochs,
                iterations=config.iterations, bf16=config.bf16, seed=config.seed, device=config.device,
            )
        )  # fmt: skip
        print(f"{path} is ready: read back, checked and scored: {found}")
    return float(records.read(scores)["mean"])


def table(result: dict[str, Any]) -> str:
    """The accuracies, for people: a line per track, in percent."""
    rows = [
        [track, *(f"{100 * found[name]:.2f}" for name in DATA), f"{100 * result['means'][track]:.2f}"]
        for track, found in result["accuracies"].items()
    ]
    return text_table([["", *DATA, "mean"], *rows], left=frozenset({0}))


def with_models(argv: Sequence[str]) -> list[str]:
    """Arguments whose first two, where they are no flags, are the models of `DATA`."""
    count = next((i for i, word in enumerate(argv[:2]) if word.startswith("-")), min(len(argv), 2))
    named = [word for name, value in zip(DATA, argv[:count], strict=False) for word in (f"--{name}", value)]
    return [*named, *argv[count:]]


def main(argv: Sequence[str] | None = None) -> None:
    """Make one submission."""
    config = load_config(ChallengeConfig, with_models(sys.argv[1:] if argv is None else argv), prog="gendd challenge")
    result = challenge(config, command_start())
    cut = "a cut of the challenge protocol" if config.epochs or config.iterations else "the challenge protocol"
    print(f"{config.out}: accuracies in percent by {cut}\n{table(result)}")


if __name__ == "__main__":
    cli.entry(main)
