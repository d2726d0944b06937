"""Checks that many configs share."""

from types import SimpleNamespace

import pytest

from core_dd.errors import InputError, above, at_least

CONFIG = SimpleNamespace(ipc=1, lr=0.0, unset=None, broken=float("nan"))


def test_at_least__and_above__take_the_bound_apart_and_let_none_pass():
    at_least(CONFIG, 1, "ipc", "unset")
    above(CONFIG, 0, "ipc", "unset")


@pytest.mark.parametrize(
    ("check", "bound", "name", "message"),
    [
        (at_least, 2, "ipc", "ipc must be >= 2, got 1."),
        (above, 0, "lr", "lr must be > 0, got 0.0."),
        (at_least, 0, "broken", "broken must be >= 0, got nan."),
        (above, 0, "broken", "broken must be > 0, got nan."),
    ],
)
def test_at_least__and_above__refuse_by_name(check, bound, name, message):
    with pytest.raises(InputError) as caught:
        check(CONFIG, bound, "unset", name)
    assert str(caught.value) == message
