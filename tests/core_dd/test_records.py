"""Files that are read back: the right kind, or one sentence with the file and the place in it."""

import os
from typing import TypedDict

import pytest
import torch

from core_dd.errors import InputError
from core_dd.records import checked, fitting, parse, read, restoring


class Kind(TypedDict, total=False):
    steps: int
    names: list[str]
    seconds: dict[str, float]


def test_read__gives_what_the_file_holds_with_keys_beyond_the_kind(tmp_path):
    (tmp_path / "a.json").write_text('{"steps": 3, "seconds": {"a": 1, "b": 0.5}, "more": [null]}')
    expected = {"steps": 3, "seconds": {"a": 1, "b": 0.5}, "more": [None]}
    assert read(tmp_path / "a.json", Kind) == expected and read(tmp_path / "a.json") == expected


def test_read__of_a_pipe_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(InputError, match="no regular file"):
        read(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b'{"steps": 3', "not valid JSON"),
        (b'{"steps": NaN}', "not valid JSON .* NaN"),
        (b'{"seconds": {"a": 1e999}}', "not valid JSON"),
        (b'{"steps": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"seconds": {"a": ' + b"9" * 400 + b"}}", "out of range"),
        (b"[" * 10**5, "not valid JSON"),
        (b'{"a":' * 10**4 + b"1" + b"}" * 10**4, "not valid JSON"),
        (b'{"names": ["\xff"]}', "not valid JSON"),
        (b"\x00\x01", "not valid JSON"),
        (b"[]", "a.json: expected object, got array"),
        (b"null", "expected object, got null"),
        (b'"x"', "expected object, got str"),
        (b"3", "expected object, got int"),
        (b'{"steps": "3"}', "a.json at steps: expected int, got str"),
        (b'{"steps": 3.5}', "at steps: expected int, got float"),
        (b'{"steps": true}', "at steps: expected int, got bool"),
        (b'{"names": "abc"}', "at names: expected array, got str"),
        (b'{"names": ["a", {}]}', r"at names\[1\]: expected str, got object"),
        (b'{"seconds": {"a": "1"}}', r"at seconds\[\.\.\.\]: expected float, got str"),
    ],
)
def test_read__names_file_and_place(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as refused:
        read(tmp_path / "a.json", Kind, "Make it again.")
    text = str(refused.value)
    assert str(tmp_path / "a.json") in text and text.endswith("Make it again.") and len(text) < 500


def test_read__no_file_or_a_folder(tmp_path):
    for place in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(InputError, match=f"cannot read {place}"):
            read(place)


def test_parse__calls_it_what_it_is_told():
    with pytest.raises(InputError, match="^the header of x at steps"):
        parse('{"steps": []}', Kind, "the header of x")


def test_checked__returns_the_same_object():
    value = {"steps": 1}
    assert checked(value, Kind, "x") is value


def test_fitting__refuses_memory_of_another_shape():
    parameter = torch.zeros(2, 3, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    fitting(optimizer)
    optimizer.state[parameter]["momentum_buffer"] = torch.zeros(1, 3)
    with pytest.raises(ValueError, match=r"momentum_buffer has shape \(1, 3\), expected \(2, 3\)"):
        fitting(optimizer)


@pytest.mark.parametrize("error", [KeyError("a"), RuntimeError("size mismatch"), AttributeError("b"), TypeError("c")])
def test_restoring__blames_the_file(error):
    with pytest.raises(InputError, match="^x.pt does not hold the state of this run"), restoring("x.pt"):
        raise error


def test_restoring__leaves_what_says_it_already():
    with pytest.raises(InputError, match="^clear$"), restoring("x.pt"):
        raise InputError("clear")
