"""What a set or a generator's card tells of the check that ended the generator's training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from core_dd.notes import note


class Learnt(TypedDict):
    """What a generator's check after its training found, as its card and the sets drawn from it keep it; more stands
    there."""

    at_chance: bool
    said: str


def warn_of(card: Mapping[str, Any], where: str | Path) -> None:
    """Say on stderr where a card, of a generator or of a set drawn from one, tells that its check found nothing learnt.

    Args:
        card: what `gendd train` keeps under "learnt" is looked at, where it is there.
        where: what the card is of.
    """
    found = card.get("learnt")
    if found and found["at_chance"]:
        note(f"{where}, when its generator's training ended: {found['said']}")
