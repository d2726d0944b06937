"""What is said to people, and what is never passed on to their terminal."""

import pytest

from core_dd.notes import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 猫 no\u00a0break", "plain é 猫 no\u00a0break"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\tc\u2028d", r"a\nb\tc\u2028d"),
        ("\u202egnp.exe \u061c \u200f", r"\u202egnp.exe \u061c \u200f"),
        ("no\u200bbody \ufeff\u2060\u00ad", r"no\u200bbody \ufeff\u2060\xad"),
        ("tag \U000e0041 half \ud800", r"tag \U000e0041 half \ud800"),
    ],
)
def test_printable__spells_what_steers_or_hides(text, shown):
    assert printable({text: [text, 1, None]}) == {shown: [shown, 1, None]}
