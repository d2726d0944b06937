"""What a distillation takes and will take, by a clock that is told."""

import pytest
import torch

from matching_dd.distill import measured
from matching_dd.methods.dm import DM, DMConfig
from matching_dd.watch import TRIALS, Watch, settled

SMALL = {"network": "convnet1_w8", "ipc": 1, "batch_real": 4, "compile": False, "tracker": "none"}
NOTHING = {"iterations": 0, "seconds": 0.0}


class Clock:
    """It stands still unless it is told."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def watching(earlier=NOTHING, **options) -> tuple[Watch, Clock]:
    clock = Clock()
    return Watch(DMConfig(**{"iterations": 100, **SMALL, **options}), earlier, clock), clock


def iterate(watch: Watch, clock: Clock, *seconds: float, compiling: bool = False) -> None:
    for each in seconds:
        with watch.iteration(compiling) as wait:
            clock.seconds += each
            wait(torch.zeros(()))


@pytest.mark.parametrize(
    ("seconds", "waited", "period", "each"),
    [
        ([1, 1, 1, 9] * TRIALS, 60, 4, 3),  # one in four computes features of real images
        ([1, 1, 9, 1] * TRIALS + [9], 69, 4, 3),
        ([1, 1, 1, 9] * (TRIALS - 1), 48, 4, None),
        ([20, 20, 20, 90], 150, 4, 37.5),
        ([20, 20, 20], 60, 4, None),  # the dear one is still to come
        ([70], 70, 1, 70),
        ([30], 80, 1, 30),  # after one that compiled
        ([], 80, 1, None),
        ([10, 10], 20, 1, None),
    ],
)
def test_settled__is_the_mean_over_whole_periods(seconds, waited, period, each):
    found = settled(seconds, waited, period)
    assert found is None if each is None else found == pytest.approx(each)


def test_forecast__of_long_iterations_waits_a_minute():
    watch, clock = watching()
    iterate(watch, clock, 40, compiling=True)
    assert watch.forecast(1) is None  # it compiled
    iterate(watch, clock, 15, compiling=True)
    assert watch.forecast(2) is None
    iterate(watch, clock, 15, compiling=True)
    assert watch.forecast(3) == "15 s an iteration: about 0:24:15 for the 97 to go"
    iterate(watch, clock, 15)
    assert watch.forecast(4) is None  # once


def test_forecast__of_steps_that_share_a_batch_counts_the_dear_ones():
    watch, clock = watching(steps_per_batch=5)
    said = []
    for done in range(1, 100):
        iterate(watch, clock, 1 if done % 5 else 6)
        said += [(done, line)] if (line := watch.forecast(done)) else []
    assert said == [(25, "2 s an iteration: about 0:02:30 for the 75 to go")]


def test_forecast__says_what_max_seconds_leaves():
    watch, clock = watching(max_seconds=20.0)
    iterate(watch, clock, *[1] * TRIALS)
    said = "1 s an iteration: about 0:01:35 for the 95 to go, of which max_seconds leaves 0:00:15"
    assert watch.forecast(TRIALS) == said


def test_cost__is_of_all_calls_and_says_what_validation_took():
    watch, clock = watching({"iterations": 5, "seconds": 10.0, "stepping": 6.0, "validating": 3.0}, val_fraction=0.1)
    iterate(watch, clock, 2)
    with watch.validation():
        clock.seconds += 30
    clock.seconds += 1
    assert watch.cost(6) == {"iterations": 6, "seconds": 43.0, "stepping": 8.0, "validating": 33.0}
    assert "validating" not in watching()[0].cost(0)


def test_part__is_of_the_time_of_all_calls():
    watch, clock = watching({"seconds": 9.0, "stepping": 4.0}, max_seconds=10.0)
    assert watch.part() == pytest.approx(0.4) and watching()[0].part() == 0
    iterate(watch, clock, 3)
    assert watch.part() == pytest.approx(0.7) and watch.left() == pytest.approx(3) and not watch.over()


def taking(monkeypatch, seconds) -> tuple[Clock, list[int]]:
    """Steps of DM that take what a function says of their number; which there were."""
    clock, steps = Clock(), []

    def step(self, number):
        clock.seconds += seconds(number)
        steps.append(number)
        return torch.zeros(())

    monkeypatch.setattr(DM, "step", step)
    return clock, steps


@pytest.mark.parametrize(
    ("period", "seconds", "each", "count"),
    [
        (1, lambda step: 2, 2, 6),
        (5, lambda step: 1 if step % 5 else 6, 2, 26),
        (1, lambda step: 40, 40, 2),
        (1, lambda step: 90, 90, 1),
        (3, lambda step: 20 if step % 3 else 80, 40, 4),
    ],
)
def test_measured__is_of_whole_batches(digits, monkeypatch, period, seconds, each, count):
    clock, steps = taking(monkeypatch, seconds)
    found = measured(DMConfig(**SMALL, steps_per_batch=period), digits, clock)
    assert found.each == pytest.approx(each) and found.first == seconds(0) and steps == list(range(count))


@pytest.mark.parametrize(
    ("limit", "expected", "said"),
    [
        (None, 202, "0:03:22 for 100"),
        (50.0, 52, "0:00:52, in which max_seconds 50 leaves about 25 of 100"),
        (500.0, 202, "0:03:22 for 100"),
    ],
)
def test_measured__ends_where_max_seconds_does(digits, monkeypatch, limit, expected, said):
    clock, _ = taking(monkeypatch, lambda step: 2)
    config = DMConfig(**SMALL, iterations=100, max_seconds=limit)
    found = measured(config, digits, clock)
    assert found.seconds(config) == pytest.approx(expected) and found.said(config) == said
