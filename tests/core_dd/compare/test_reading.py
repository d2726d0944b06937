"""A comparison's file: what it may say, and what it is told where it says something else."""

from pathlib import Path

import pytest

from core_dd.compare.reading import ProtocolChoice, read_comparison
from core_dd.errors import InputError
from core_dd.judge.protocols import resolved

LEAST = "producers: {Random: {coreset: random}}\ndata: digits\nipc: 1\n"


def read(text: str, **places: str):
    Path("a.yaml").write_text(text)
    return read_comparison(Path("a.yaml"), places)


def test_read__single_values_and_lists_are_alike():
    one, many = read(LEAST), read(LEAST.replace("data: digits\nipc: 1", "data: [digits]\nipc: [1]\nseeds: [0]"))
    assert one.data_choices == many.data_choices and one.seed_numbers == many.seed_numbers == [0]
    assert [choice.name for choice in one.protocol_choices] == ["dm"]


def test_read__data_lie_where_they_are_said_to():
    text = LEAST.replace("digits", "{cifar10: cifar10, small: {spec: digits, image_size: 4}}")
    first, second = read(text, cifar10="parquet:here").data_choices
    assert (first.name, first.spec) == ("cifar10", "parquet:here")
    assert (second.name, second.spec, second.image_size) == ("small", "digits", 4)


@pytest.mark.parametrize(
    "choice",
    [
        ProtocolChoice("dm"),
        ProtocolChoice("dm", epochs=3),
        ProtocolChoice("dm", iterations=9),
        ProtocolChoice("dm", iterations=9, augment="flip_crop"),
    ],
)
def test_protocol__is_called_as_in_scores(choice):
    assert choice.name == resolved("dm", choice.epochs, choice.iterations, choice.augment).name
    assert ("augment" in choice.options) is (choice.augment is not None)  # what is done stays done


def test_overrides__the_last_that_matches_wins():
    comparison = read(
        "producers: {DM: {method: dm, iterations: 1}}\ndata: digits\nipc: [1, 2]\n"
        "overrides:\n- {match: {producer: DM}, options: {iterations: 2, lr_img: 3.0}, judge: {classifiers: 4}}\n"
        "- {match: {ipc: [2]}, options: {iterations: 5}}\n"
    )
    place = {"producer": "DM", "data": "digits", "seed": 0}
    assert comparison.options_of({**place, "ipc": 1}) == {"method": "dm", "iterations": 2, "lr_img": 3.0}
    assert comparison.options_of({**place, "ipc": 2})["iterations"] == 5
    assert comparison.judge_of({**place, "ipc": 1}).classifiers == 4


def test_producers__are_like_others_but_for_what_they_say():
    comparison = read(
        "producers: {A: {method: dm, iterations: 1}, B: {like: C, lr_img: 3.0}, C: {like: A, iterations: 2}}\n"
        "data: digits\nipc: 1\n"
    )
    assert comparison.producers["B"] == {"method": "dm", "iterations": 2, "lr_img": 3.0}
    assert comparison.producers["A"] == {"method": "dm", "iterations": 1}


def test_rank__is_the_line_of_only_and_the_real_set_follows_what_is_judged():
    comparison = read(LEAST.replace("ipc: 1", "ipc: [1, 2, 3]") + "only: [{ipc: 2}, {ipc: [1, 2]}]\nskip: [{ipc: 3}]\n")
    place = {"producer": "Random", "data": "digits", "seed": 0, "network": "convnet3", "protocol": "dm"}
    assert [comparison.rank({**place, "ipc": ipc}) for ipc in (1, 2, 3)] == [1, 0, None]
    real = {**place, "producer": "real", "ipc": None}
    assert comparison.rank(real, {("digits", "convnet3", "dm")}) == -1 and comparison.rank(real) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LEAST + "protocol: dm\n", "a.yaml: unknown key 'protocol'; did you mean 'protocols'?"),
        ("data: digits\nipc: 1\n", "missing required field producers"),
        (LEAST.replace("1", "ten"), "a.yaml at ipc: "),
        (LEAST.replace("1", "0"), "a.yaml at ipc: "),
        (LEAST.replace("1", "[]"), "the grid is empty, because it names no ipc"),
        (LEAST.replace("{Random: {coreset: random}}", "{}"), "the grid is empty, because it names no producer"),
        (LEAST.replace("1", "[1, 1]"), "names ipc 1 twice"),
        (LEAST.replace("Random", "real"), "the producer 'real' is always there"),
        (LEAST.replace("Random", "a/b"), "a.yaml: 'a/b' cannot be a name"),
        (LEAST + "seeds: 0\n", "a.yaml at seeds"),
        (LEAST + "seeds: 1000000000\n", "a.yaml at seeds"),
        (LEAST + "overrides: 5\n", "a.yaml at overrides"),
        (LEAST + "only: [{methods: Random}]\n", "'only': unknown axis 'methods'"),
        (LEAST + "only: [{producers: Random}]\n", "unknown axis 'producers'; did you mean 'producer'?"),
        (LEAST + "skip: [{producer: Randon}]\n", "no producer 'Randon'; did you mean 'Random'?"),
        (LEAST + "skip: [{}]\n", "'skip' names no axis"),
        (LEAST + "skip: [{protocol: dc}]\n", "the comparison has no protocol 'dc'"),
        (LEAST + "overrides: [{match: {ipc: 1}}]\n", "override 1 changes nothing"),
        (LEAST + "overrides: [{match: {ipc: 1}, option: {a: 1}}]\n", "did you mean 'options'?"),
        (
            LEAST + "overrides: [{match: {network: convnet3}, options: {a: 1}}]\n",
            "override 1 changes options by network, but a set is made once for all of them",
        ),
        (LEAST + "overrides: [{match: {ipc: 1}, judge: {clasifiers: 1}}]\n", "did you mean 'classifiers'?"),
        (
            LEAST + "overrides: [{match: {ipc: 1}, judge: {classifiers: x}}]\n",
            "a.yaml: override 1, 'judge' at classifiers",
        ),
        (LEAST + "judge: {runs: 3}\n", "a.yaml at judge"),
        (
            LEAST + "ablations: {a: [Random, Randon]}\n",
            "ablation 'a': there is no producer 'Randon'; did you mean 'Random'?",
        ),
        (LEAST + "ablations: {a: [Random]}\n", "a.yaml at ablations"),
    ],
)
def test_read__says_what_is_wrong(text, message):
    with pytest.raises(InputError) as error:
        read(text)
    assert message in str(error.value)


def test_read__data_that_the_comparison_does_not_have():
    with pytest.raises(InputError, match="--data digit=x: the comparison has no data 'digit'; did you mean 'digits'"):
        read(LEAST, digit="x")
