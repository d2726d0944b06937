"""Early stopping: at every checkpoint classifiers learn from the set so far, and a validation split tells the best."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypedDict

from msgspec import Meta

from core_dd import files, records
from core_dd.data.images import ImageData
from core_dd.errors import Diverged, about, require
from core_dd.judge.chance import at_chance, chance
from core_dd.judge.evaluate import evaluate
from core_dd.judge.habits import trains
from core_dd.judge.protocols import PROTOCOLS
from core_dd.notes import note
from core_dd.rng import stream
from core_dd.run import Run, read_stats
from core_dd.sets import pictures
from core_dd.sets.distilled import Cost, DistilledSet, Spent
from matching_dd.options import MatchingConfig

DISTILLED, GRID = "distilled.safetensors", "grid.png"
"""The set and its picture, in a run folder and in its checkpoints."""


class _Validated(TypedDict):
    """What the best set says of itself."""

    accuracy: Annotated[float, Meta(ge=0, le=1)]


class _Best(Spent):
    """Of the metadata of the best set, what a run that goes on needs."""

    validation: _Validated


class EarlyStopping:
    """What tells the best set of a run, and when there has been none better for too long.

    Args:
        config: of the run, with a `val_fraction`.
        data: the real data, with a validation split.

    Attributes:
        best: the folder of the best set; there after the first `measure` and `keep`.

    Raises:
        InputError: a protocol that wants a learning rate of the set, where the method learns none.
    """

    def __init__(self, config: MatchingConfig, data: ImageData) -> None:
        self.config, self.best = config, Path()
        self._data = replace(data, test_images=data.val_images, test_labels=data.val_labels)
        self._accuracy, self._misses, self._reached = -1.0, 0, 0
        require(
            len(data.val_images) > 0,
            f"{data.name} comes without a validation split. Load it with one: load_data(..., val_fraction=0.1).",
        )
        require(
            not PROTOCOLS[config.val_protocol].learned_lr or config.method == "mtt",
            f"val_protocol {config.val_protocol} trains at a learning rate learnt with the set, and {config.method} "
            "learns none. Choose another, such as quick.",
        )

    def resume(self, run: Run, first: int) -> None:
        """Go on in a run folder, of which `first` iterations are done."""
        self.best = run.folder / "best"
        if not self.best.is_dir():
            return
        where = f"the metadata of {self.best}"
        meta = records.checked(DistilledSet.load(self.best / DISTILLED).meta, _Best, where, "Start a new run.")
        self._accuracy, self._reached = meta["validation"]["accuracy"], meta["cost"]["iterations"]
        since = [line["step"] for line in read_stats(run.folder / "stats.jsonl") if "val_accuracy" in line]
        self._misses = sum(self._reached < step <= first for step in since)

    def measure(self, dset: DistilledSet) -> dict[str, float]:
        """The mean accuracy on the validation split of classifiers that learn from the set, as val_accuracy; 0 of a set
        that none can learn from, which a later one may mend."""
        config = self.config
        try:
            with about(f"--val_protocol {config.val_protocol}"):
                if not trains(dset):
                    raise Diverged(f"the learning rate learnt with the set is {dset.meta['lr']:.3g}, not above 0.")
                scores = evaluate(
                    dset,
                    self._data,
                    config.val_protocol,
                    config.network,
                    runs=config.val_classifiers,
                    seed=stream(config.seed, "validation").initial_seed(),  # not the judge's classifiers
                    device=config.device,
                    bf16=config.bf16,
                )
        except Diverged as error:
            note(f"note: validation counts the set as 0 %: {error}")
            return {"val_accuracy": 0.0}
        return {"val_accuracy": scores.mean}

    def keep(self, run: Run, dset: DistilledSet, accuracy: float) -> bool:
        """Keep the set if it is the best so far; returns whether it is time to stop.

        A run that was killed before the checkpoint with its best set comes by that set again, which is then no miss.
        """
        reached = dset.meta["cost"]["iterations"]
        if accuracy > self._accuracy or reached == self._reached:
            self._accuracy, self._misses, self._reached = accuracy, 0, reached
            meta = dset.meta | {"validation": {"accuracy": accuracy, "protocol": self.config.val_protocol}}
            with files.atomic(self.best, replace=True) as temporary:
                temporary.mkdir()
                keep(replace(dset, meta=meta), temporary)
        else:
            self._misses += 1
        run.say(f"validation: {100 * accuracy:.1f} %, best {100 * self._accuracy:.1f} %")
        return self.over()

    def warning(self) -> str | None:
        """What to say where the accuracy of the best set cannot be told from chance; None where it can."""
        labels = self._data.test_labels
        luck = chance(labels)
        if not at_chance([self._accuracy], luck, len(labels)):
            return None
        return (
            f"WARNING: the best set has {100 * self._accuracy:.1f} % on the validation split, which cannot be told "
            f"from chance, {100 * luck:.1f} %: it teaches nothing so far. Look at its picture; give it more "
            "iterations, a lower lr_img or another init."
        )

    def over(self) -> bool:
        """Whether there was no better set for too long."""
        return self.config.patience is not None and self._misses >= self.config.patience

    def deliver(self, folder: Path, spent: Cost) -> None:
        """Write the best set and its picture into a folder; the set says what the whole run took to find it.

        Args:
            folder: the run's.
            spent: what the run took, until it ended.
        """
        dset = DistilledSet.load(self.best / DISTILLED)
        cost = spent | {"iterations": dset.meta["cost"]["iterations"]}
        replace(dset, meta=dset.meta | {"cost": cost}).write(folder / DISTILLED)
        with files.atomic(folder / GRID) as temporary:
            shutil.copyfile(self.best / GRID, temporary)


def keep(dset: DistilledSet, folder: Path) -> None:
    """Write a set and its picture into a folder."""
    dset.save(folder / DISTILLED)
    pictures.save_grid(folder / GRID, dset.images, dset.labels)
