"""Checks that many configs share."""

from types import SimpleNamespace

import numpy as np
import pytest

from core_dd.errors import InputError, above, at_least, whole

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


@pytest.mark.parametrize(
    ("value", "bound", "message"),
    [
        (1.5, None, "n must be a whole number, got 1.5."),
        (2.0, 1, "n must be a whole number >= 1, got 2.0."),
        ("3", 1, "n must be a whole number >= 1, got '3'."),
        (None, 0, "n must be a whole number >= 0, got None."),
        (0, 1, "n must be >= 1, got 0."),
    ],
)
def test_whole__refuses_by_name(value, bound, message):
    with pytest.raises(InputError) as caught:
        whole("n", value, bound)
    assert str(caught.value) == message


def test_whole__takes_integers_of_any_kind():
    for value in (-3, np.int64(-3), np.uint8(3)):
        whole("n", value)
    whole("n", np.int64(1), 1)
