"""What a set or a generator's card tells of the check that ended the generator's training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

from core_dd.notes import note


class Learnt(TypedDict):
    """What a generator's check after its training found, as its card and the sets drawn from it keep it; more stands
    there."""

    at_chance: bool
    said: str
    label_agreement: NotRequired[Annotated[float, Meta(ge=0, le=1)]]
    step: NotRequired[Annotated[int, Meta(ge=0)]]
    """How long the generator was trained then."""
    real_label_agreement: NotRequired[Annotated[float, Meta(ge=0, le=1)]]


def warn_of(card: Mapping[str, Any], where: str | Path) -> None:
    """Say on stderr where a card, of a generator or of a set drawn from one, tells that its check found nothing learnt.

    Args:
        card: what `gendd train` keeps under "learnt" is looked at, where it is there.
        where: what the card is of.
    """
    found = card.get("learnt")
    if found and found["at_chance"]:
        note(f"{where}, when its generator's training ended: {found['said']}")


def doubt_of(card: Mapping[str, Any], known: bool) -> str:
    """Why a generator may have learnt too little for what is built on it; "" where nothing speaks for that, or where
    `warn_of` has said so already.

    Args:
        card: the generator's.
        known: whether it was trained on the data that are at hand.
    """
    found = card.get("learnt")
    if not known:
        return "it was trained on other data, so that its labels are drawn anew: train it on these first"
    if not found:
        return "its card does not say whether it has learnt anything, as that of a training that ended does"
    own, real = found.get("label_agreement", 1.0), found.get("real_label_agreement", 0.0)
    if found["at_chance"] or own >= real / 2:
        return ""
    return (
        f"a classifier recognises {100 * own:.1f} % of its samples, of real images {100 * real:.1f} %: train it longer"
    )
