"""Class-incremental learning with a set as the memory: what it is worth where classes come group by group."""

import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from core_dd.data.images import ImageData
from core_dd.errors import require, whole
from core_dd.judge.chance import at_chance, chance
from core_dd.judge.evaluate import Scores, evaluate
from core_dd.judge.measures import Measuring
from core_dd.rng import stream
from core_dd.sets.distilled import DistilledSet

_OF_ONE_STEP = ("answers", "curves", "curve_steps")
"""What a score says of single classifiers, and so is left out of one that stands for those of all steps."""


def incremental(
    dset: DistilledSet,
    data: ImageData,
    steps: int,
    *,
    seed: int = 0,
    iterations: int | None = None,
    with_fidelity: bool | Measuring = False,
    **how: Any,
) -> Scores:
    """Learn classes in `steps` groups with a set as the memory, as [DM, Zhao & Bilen, WACV
    2023](https://arxiv.org/abs/2110.04181) does after GDumb (Prabhu et al., ECCV 2020): after each group new
    classifiers are trained from scratch on the memory's images of all classes seen so far, and tested on the test
    images of those classes.

    The memory of a class is what the set holds of it: as it would be made when the class comes, for what makes each
    class's images by themselves (DM, M3D, DataDAM with a network without batch normalisation, random images); choices
    by a classifier of all classes, and methods that train on all of them, look ahead. Classifiers have an output for
    every class, and learn that unseen ones do not occur.

    Args:
        dset: the set.
        data: the real data it stands for.
        steps: groups, as equal as can be, in an order of the classes that `seed` draws; of two classes or more.
        seed: of that order, and as for `evaluate`.
        iterations: shorten the protocol of each step, as `steps` of `evaluate` does.
        with_fidelity: as for `evaluate`, of the whole set.
        how: more options of `evaluate`, for each step.

    Returns:
        One accuracy per classifier number: its mean over the steps. The record is that of the last step but for what
        is of one step alone, its protocol named PROTOCOL_incremental_STEPS, and `incremental` in it: `order`, the
        classes as they come, and by step `classes`, how many are known, and `accuracies`, of every classifier.

    Raises:
        InputError: as `evaluate`; fewer than two classes for a step.
    """
    groups = class_groups(data.num_classes, steps, seed)
    found, chances = [], []
    for count in range(1, steps + 1):
        seen = torch.cat(groups[:count])
        own = replace(data, **_test_of(data, seen))
        measured = with_fidelity if count == steps else False
        found.append(evaluate(_memory_of(dset, seen), own, seed=seed, steps=iterations, with_fidelity=measured, **how))
        chances.append(chance(own.test_labels))
    by_step = [scores.accuracies for scores in found]
    accuracies = [statistics.fmean(own) for own in zip(*by_step, strict=True)]
    last, luck = found[-1].record, statistics.fmean(chances)
    record = {key: value for key, value in last.items() if key not in _OF_ONE_STEP}
    record |= {
        "protocol": f"{last['protocol']}_incremental_{steps}",
        "chance": luck,
        "at_chance": at_chance(accuracies, luck, len(data.test_labels)),
        "seconds": sum(scores.record["seconds"] for scores in found),
        "incremental": {
            "order": torch.cat(groups).tolist(),
            "classes": [sum(map(len, groups[:count])) for count in range(1, steps + 1)],
            "accuracies": by_step,
        },
    }
    return Scores(accuracies, record)


def class_groups(classes: int, steps: int, seed: int) -> list[Tensor]:
    """The classes in `steps` groups as they come, int64 each, in an order that `seed` draws.

    Raises:
        InputError: if that makes a group of a single class.
    """
    whole("steps", steps, 1)
    require(
        classes >= 2 * steps,
        f"{classes} classes cannot come in {steps} steps of two or more. Learn them in at most {classes // 2} steps.",
    )
    return list(torch.randperm(classes, generator=stream(seed, "class_order")).tensor_split(steps))


def _memory_of(dset: DistilledSet, seen: Tensor) -> DistilledSet:
    """The part of a set that is of some classes."""
    chosen = torch.isin(dset.hard_labels, seen)
    return replace(dset, images=dset.images[chosen], labels=dset.labels[chosen])


def _test_of(data: ImageData, seen: Tensor) -> Mapping[str, Tensor]:
    """The test images and labels of some classes."""
    chosen = torch.isin(data.test_labels, seen)
    return {"test_images": data.test_images[chosen], "test_labels": data.test_labels[chosen]}
