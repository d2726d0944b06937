"""A training of classifiers that goes on after a kill: its state stands in a file, which is written now and then."""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch
from msgspec import Meta
from torch import Tensor

from core_dd import files, records
from core_dd.data.readers import load_tensors
from core_dd.errors import InputError
from core_dd.notes import note

EVERY_S = 120.0
"""Seconds of training between two writings of its state, at least."""

_SHARE = 0.02
"""The part of the time that writing may take."""

_HINT = "Remove it, to train from the start."


class _State(TypedDict):
    """What stands in the file, beside the tensors."""

    identity: str
    step: Annotated[int, Meta(ge=1)]
    seconds: Annotated[float, Meta(ge=0, le=1e12)]
    curve_steps: Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=1)]
    paused: list[list[Annotated[float, Meta(ge=0, le=1)]]]


def beside(result: Path) -> Path:
    """Where the training is kept of which `result` will be the result: `scores.json.training`."""
    return result.with_name(f"{result.name}.training")


def identity_of(said: Any, tensors: Iterable[Tensor]) -> str:
    """16 hex digits of plain values and tensors: what tells a training from every other one."""
    total = hashlib.blake2b(json.dumps(said, sort_keys=True, default=str).encode(), digest_size=8)
    for tensor in tensors:
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()


class Damaged(InputError):
    """The file of an unfinished training holds no state that could be gone on from."""


class Unfinished:
    """The file of a training that is under way.

    Args:
        place: the file; it may be removed at any time, at the cost of the work.
        identity: of the training, see `identity_of`.

    Attributes:
        seconds: that earlier calls have trained.
    """

    def __init__(self, place: Path, identity: str) -> None:
        self.place, self.identity, self.seconds = place, identity, 0.0
        self._began = time.monotonic()
        self._due: float | None = self._began + EVERY_S
        self._kept = False

    def read(self) -> dict[str, Any] | None:
        """What `write` wrote of this training; None where there is nothing, or another's.

        Raises:
            Damaged: if it is none of a training.
        """
        if not self.place.exists():
            return None
        try:
            state = records.checked(load_tensors(self.place), dict[str, Any], str(self.place), _HINT)
            plain = {name: value for name, value in state.items() if name in _State.__annotations__}
            records.checked(plain, _State, str(self.place), _HINT)
        except InputError as error:
            raise _damaged(error) from None
        if state["identity"] != self.identity:
            note(f"note: {self.place} is of another training, and makes way for this one")
            return None
        self.seconds, self._kept = state["seconds"], True
        return state

    @contextlib.contextmanager
    def restoring(self) -> Iterator[None]:
        """`core_dd.records.restoring` of this file.

        Raises:
            Damaged: where what was read does not fit the training.
        """
        try:
            with records.restoring(str(self.place), _HINT):
                yield
        except InputError as error:
            raise _damaged(error) from None

    @property
    def due(self) -> bool:
        """Whether it is time to write the state."""
        return self._due is not None and time.monotonic() >= self._due

    @property
    def kept(self) -> bool:
        """Whether there is a state to go on from."""
        return self._kept and self._due is not None

    def write(self, step: int, **state: Any) -> None:
        """Write what is to be gone on from at `step`. Where it cannot be written that is said once, and the training
        goes on without."""
        began = time.monotonic()
        seconds = self.seconds + began - self._began
        try:
            with files.atomic(self.place) as temporary:
                torch.save({"identity": self.identity, "step": step, "seconds": seconds, **state}, temporary)
        except InputError as error:
            note(f"note: the training cannot be gone on from after a stop: {error}")
            self._due = None
            return
        now, self._kept = time.monotonic(), True
        self._due = now + max(EVERY_S, (now - began) / _SHARE)


def _damaged(error: InputError) -> Damaged:
    """The same said of a file that may be removed."""
    said = str(error)
    return Damaged(said if said.endswith(_HINT) else f"{said} {_HINT}")
