"""How the classifiers behind a score or a published value were trained, in words, to stand beside it."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from core_dd.data.images import KNOWN
from core_dd.judge.protocols import PROTOCOLS, UNSTATED
from core_dd.judge.scores import Score
from core_dd.report.published import PublishedRow

_OPTIMISERS = {"sgd": "SGD", "adamw": "AdamW"}

UNKNOWN = "?"
"""Where a source, or an older score, does not say."""


def optimiser_of(protocol: Mapping[str, Any]) -> str | None:
    """Optimiser, learning rate and batch size of a protocol, as `dataclasses.asdict` has it; None where it does not
    say."""
    if "lr" not in protocol:
        return None
    name = _OPTIMISERS.get(protocol.get("optimiser", "sgd"), protocol.get("optimiser"))
    return f"{name} {protocol['lr']:g}" + (f", batch {protocol['batch_size']}" if "batch_size" in protocol else "")


def published_optimiser(row: PublishedRow) -> str | None:
    """The same of a published value, by its protocol; None where that is not known, or its paper does not say."""
    protocol = PROTOCOLS.get(row.protocol)
    if protocol is None or protocol.name in UNSTATED:
        return None
    said = asdict(protocol)
    return f"SGD learnt, batch {protocol.batch_size}" if protocol.learned_lr else optimiser_of(said)


def published_images_seen(row: PublishedRow) -> int | None:
    """How many images a classifier behind a published value saw; None where protocol, factor, ipc or the number of
    classes is not known, or the paper does not say.

    Examples:
        >>> from core_dd.report.published import rows
        >>> (dm,) = rows("fashion_mnist", 10, "dm")
        >>> published_images_seen(dm)
        100100
    """
    protocol, known = PROTOCOLS.get(row.protocol), KNOWN.get(row.dataset)
    if protocol is None or known is None or not any(known.sizes) or row.factor is None or row.ipc is None:
        return None
    if protocol.name in UNSTATED:
        return None
    images = known.sizes[0] * row.ipc * row.factor**2
    augmented = protocol.augment != "dc" or row.dataset == "mnist"
    return protocol.plan(images, augmented).images_seen(images)


def regime(labels: str) -> str:
    """The label regime that scores are told apart by: learnt labels are soft ones.

    Examples:
        >>> regime("learnt"), regime("hard"), regime("")
        ('soft', 'hard', '')
    """
    return "soft" if labels == "learnt" else labels


def regime_of(score: Score) -> str:
    """The label regime of a score: hard, soft or teacher; hard where it does not say."""
    return score.get("label_regime", score["set"].get("labels", "hard"))


def regime_said(labels: str) -> str:
    """What a heading adds where labels are not hard."""
    return {"soft": ", soft labels", "teacher": ", labels of a teacher"}.get(labels, "")


def told(value: float | str | None) -> str:
    """A value in a table, numbers in groups of three digits."""
    return UNKNOWN if value is None else value if isinstance(value, str) else f"{value:,.0f}"
