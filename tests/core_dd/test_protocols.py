"""Protocols: the published numbers of passes, drops and batches; shortening is marked."""

import math
from dataclasses import replace

import pytest

from core_dd.augment import DSA, DCAugment
from core_dd.errors import InputError
from core_dd.protocols import CHALLENGE, DC, DM, PROTOCOLS, QUICK


@pytest.mark.parametrize(
    ("protocol", "augmented", "passes", "before_the_drop"),
    [(DM, True, 1001, 502), (CHALLENGE, True, 1001, 502), (DC, False, 301, 152), (DC, True, 1001, 502)],
)
@pytest.mark.parametrize(("images", "per_pass"), [(10, 1), (256, 1), (500, 2), (1000, 4)])
def test_plan__counts_passes_as_published(protocol, augmented, passes, before_the_drop, images, per_pass):
    plan = protocol.plan(images, augmented)
    assert (plan.batch, plan.per_pass) == (min(256, images), per_pass)
    assert (plan.steps, plan.drop) == (passes * per_pass, before_the_drop * per_pass)
    assert plan.lr_at(plan.drop - 1) == 0.01
    assert plan.lr_at(plan.drop) == pytest.approx(0.001)


@pytest.mark.parametrize("name", ["dm", "dc", "challenge"])
def test_published__share_their_optimiser(name):
    protocol = PROTOCOLS[name]
    assert (protocol.lr, protocol.momentum, protocol.weight_decay, protocol.batch_size) == (0.01, 0.9, 5e-4, 256)
    assert not protocol.smoke


def test_runs__five_and_three_in_the_challenge():
    assert {name: protocol.runs for name, protocol in PROTOCOLS.items()} == {
        "dm": 5, "dc": 5, "challenge": 3, "quick": 5,
    }  # fmt: skip


def test_plan__epochs_follow_the_published_rule_when_shortened():
    short = DM.shortened(epochs=4)
    plan = short.plan(300, augmented=True)
    assert (plan.steps, plan.drop) == (5 * 2, 4 * 2)  # passes 0..4, the drop after pass 4 // 2 + 1
    assert short.smoke


def test_plan__steps_cut_the_schedule():
    plan = DC.shortened(steps=100).plan(500, augmented=False)
    assert plan.steps == 100
    assert plan.drop == 152 * 2 * 100 // (301 * 2)


@pytest.mark.parametrize("images", [7, 100, 1437, 60000])
def test_quick__takes_the_same_steps_whatever_the_size(images):
    plan = QUICK.plan(images, augmented=True)
    assert plan.steps == QUICK.steps
    assert plan.batch * plan.per_pass <= images and plan.per_pass >= 1
    rates = [plan.lr_at(step) for step in range(plan.steps)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) == pytest.approx(QUICK.lr, rel=0.05) and rates[-1] < 0.01 * QUICK.lr
    step = plan.steps // 2
    assert plan.lr_at(step) == pytest.approx(QUICK.lr * (1 + math.cos(math.pi * step / plan.steps)) / 2)


def test_shortened__nothing_given_changes_nothing():
    assert DM.shortened() is DM


@pytest.mark.parametrize(
    ("protocol", "options", "message"),
    [
        (DM, {"epochs": 0}, "epochs must be >= 1, got 0"),
        (DM, {"steps": 0}, "steps must be >= 1, got 0"),
        (DM, {"epochs": 1, "steps": 1}, "not both"),
        (QUICK, {"epochs": 1}, "counts steps"),
    ],
)
def test_shortened__refuses(protocol, options, message):
    with pytest.raises(InputError, match=message):
        protocol.shortened(**options)


def test_augmentation__dsa_without_flip_for_digits(digits):
    assert DM.augmentation(digits, "convnet3") == DSA("color_crop_cutout_scale_rotate")


@pytest.mark.parametrize(
    ("name", "network", "expected"),
    [
        ("digits", "convnet3", None),
        ("mnist", "convnet3", DCAugment("crop_scale_rotate")),
        ("mnist", "convnet3_bn", DCAugment("crop_noise")),
        ("digits", "convnet3_w64_bn", DCAugment("crop_noise")),
    ],
)
def test_augmentation__dc_augments_mnist_and_batchnorm_only(digits, name, network, expected):
    assert DC.augmentation(replace(digits, name=name), network) == expected


def test_protocols__are_frozen():
    with pytest.raises(AttributeError):
        DM.lr = 1.0
