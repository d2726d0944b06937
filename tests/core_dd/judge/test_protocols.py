"""Protocols: the published numbers of passes, drops and batches; shortening is marked."""

import math
from dataclasses import replace

import pytest
import torch

from core_dd.errors import InputError
from core_dd.judge.augment import CropAugment, DCAugment, DSAugment, IDCAugment, PolicyAugment
from core_dd.judge.protocols import (
    CHALLENGE,
    CONSTANT_COMPUTE,
    DATADAM_CODE,
    DATADAM_PAPER,
    DC,
    DM,
    IDC,
    MTT,
    PROTOCOLS,
    QUICK,
    RD3,
    RDED,
    alike,
    resolved,
)
from core_dd.judge.training import draw_batches


@pytest.mark.parametrize(
    ("protocol", "augmented", "passes", "before_the_drop"),
    [(DM, True, 1001, 502), (CHALLENGE, True, 1001, 502), (DC, False, 301, 152), (DC, True, 1001, 502)],
)
@pytest.mark.parametrize(("images", "per_pass"), [(10, 1), (256, 1), (500, 2), (1000, 4)])
def test_plan__counts_passes_as_published(protocol, augmented, passes, before_the_drop, images, per_pass):
    plan = protocol.plan(images, augmented)
    assert (plan.batch, plan.per_pass) == (min(256, images), per_pass)
    assert (plan.steps, plan.drops) == (passes * per_pass, (before_the_drop * per_pass,))
    (drop,) = plan.drops
    assert plan.lr_at(drop - 1) == 0.01
    assert plan.lr_at(drop) == pytest.approx(0.001)
    assert [step for step in range(plan.steps) if plan.new_optimizer_at(step)] == [0, drop]


@pytest.mark.parametrize(
    ("images", "protocol"),
    [(10, DM), (300, DM), (300, QUICK), (100, QUICK), (300, CONSTANT_COMPUTE)],
)
@pytest.mark.parametrize("steps", [None, 7])
def test_images_seen__equals_the_batches_drawn(images, protocol, steps):
    plan = protocol.shortened(steps=steps).plan(images, augmented=True)
    drawn = sum(draw_batches(plan, images, [0], 0, step).shape[1] for step in range(plan.steps))
    assert plan.images_seen(images) == drawn


@pytest.mark.parametrize("name", ["dm", "dc", "challenge", "idm"])
def test_published__share_their_optimiser(name):
    protocol = PROTOCOLS[name]
    assert (protocol.lr, protocol.momentum, protocol.weight_decay, protocol.batch_size) == (0.01, 0.9, 5e-4, 256)
    assert not protocol.smoke


def test_runs__as_published():
    assert {name: protocol.runs for name, protocol in PROTOCOLS.items()} == {
        "dm": 5, "dc": 5, "challenge": 3, "idm": 5, "mtt": 5, "idc": 3, "m3d": 10, "idc_mnist": 3, "idc_svhn_ipc1": 3,
        "datadam_paper": 100, "datadam_code": 10, "rded": 5, "rd3": 5, "constant_compute": 5, "quick": 5,
    }  # fmt: skip


def test_idc__drops_to_a_fifth_twice_and_keeps_its_momentum():
    plan = IDC.plan(100, augmented=True)
    assert (plan.batch, plan.per_pass, plan.steps) == (64, 2, 2000)
    assert plan.drops == (666 * 2, 833 * 2)
    rates = [plan.lr_at(step) for step in (0, 1331, 1332, 1665, 1666, 1999)]
    assert rates == pytest.approx([0.01, 0.01, 0.002, 0.002, 0.0004, 0.0004])
    assert not any(plan.new_optimizer_at(step) for step in range(1, plan.steps))
    assert IDC.cutmix == 0.5


def test_soft_labels__of_rd3_and_rded():
    rded, rd3 = RDED.plan(100, augmented=True), RD3.plan(100, augmented=True)
    assert (rded.batch, rded.steps, rd3.steps) == (50, 300 * 2, 400 * 2)
    assert [rded.lr_at(step) for step in (0, 300)] == pytest.approx([1e-3, 1e-3 * (1 + math.cos(math.pi / 4)) / 2])
    assert (rded.lr_at(600), rd3.lr_at(800)) == pytest.approx((5e-4, 0))  # the code's wave is cut at its middle
    for protocol in (RDED, RD3):
        trained = protocol.optimiser, protocol.weight_decay, protocol.cutmix, protocol.temperature, protocol.teacher
        assert trained == ("adamw", 0.01, 1.0, 20.0, "resnet18_bn")


def test_constant_compute__shows_as_many_images_of_every_set():
    for images in (3, 100, 1000, 70000):
        plan = CONSTANT_COMPUTE.plan(images, augmented=True)
        assert (plan.steps, plan.batch, plan.images_seen(images)) == (2000, 256, 512_000)
    plan = CONSTANT_COMPUTE.plan(10, augmented=True)
    drawn = torch.cat([draw_batches(plan, 10, [0, 1], 0, step) for step in range(3)], 1)
    assert all(int(own.max() - own.min()) <= 1 for own in (run.bincount() for run in drawn))  # pass after pass
    assert not drawn[0].equal(drawn[1]) and sorted(drawn[0, :10].tolist()) == [*range(10)]


def test_alike__whatever_the_number_of_classifiers():
    assert alike("m3d", "idc") and alike("challenge", "idm") and not alike("mtt", "dm") and not alike("rd3", "rded")


@pytest.mark.parametrize(
    ("augment", "expected"),
    [
        ("none", None),
        ("dsa", DSAugment("color_crop_cutout_scale_rotate")),
        ("flip_crop", DSAugment("crop", mode="M")),
        ("autoaugment", PolicyAugment("svhn")),
        ("randaugment", PolicyAugment("randaugment")),
    ],
)
def test_augmented__replaces_all_of_it_and_says_so(digits, augment, expected):
    protocol = IDC.augmented(augment)
    assert protocol.augmentation(digits, "convnet3") == expected and protocol.cutmix == 0
    assert protocol.name == f"idc, augment {augment}" and not alike(protocol.name, "idc")
    assert resolved("idc", steps=7, augment=augment).name == f"idc_7_steps, augment {augment}"


def test_augmented__by_none_and_of_other_data(digits):
    assert DM.augmented(None) is DM
    mirrored = replace(digits, hflip=True)
    assert DM.augmented("flip_crop").augmentation(mirrored, "convnet3") == DSAugment("crop_flip", mode="M")
    assert DM.augmented("autoaugment").augmentation(mirrored, "convnet3") == PolicyAugment("cifar10")
    assert RDED.augmentation(digits, "convnet3") == CropAugment(flips=False)
    assert DC.augmented("randaugment").plan(10, augmented=True).steps == 1001  # as DC trains where it augments
    with pytest.raises(InputError, match="unknown augment 'randaug'; did you mean 'randaugment'"):
        DM.augmented("randaug")
    two = replace(digits, train_images=digits.train_images.expand(-1, 2, -1, -1))
    with pytest.raises(InputError, match="augment randaugment knows images of 1 or 3 channels, digits has 2"):
        DM.augmented("randaugment").augmentation(two, "convnet3")


def test_datadam__paper_halves_every_15_passes_and_code_runs_1801():
    paper, code = DATADAM_PAPER.plan(10, augmented=True), DATADAM_CODE.plan(100, augmented=True)
    assert [paper.lr_at(step) for step in (0, 14, 15, 30)] == pytest.approx([0.01, 0.01, 0.005, 0.0025])
    assert (code.batch, code.steps, code.drops) == (64, 1801 * 2, (902 * 2,))


def test_mtt__trains_at_the_sets_own_learning_rate():
    assert MTT.fitted_to(0.03).plan(10, augmented=True).lr_at(0) == 0.03
    assert DM.fitted_to(0.03) is DM
    for lr in (None, -0.01):
        with pytest.raises(InputError, match=f"this set has {lr}. Give a set that MTT distilled"):
            MTT.fitted_to(lr)


def test_augmentation__of_idc_leaves_cutout_to_cutmix(digits):
    assert IDC.augmentation(digits, "convnet3") == IDCAugment("color_crop_scale_rotate")


def test_idc__on_mnist_and_svhn_has_no_cutmix(digits):
    mnist, svhn = PROTOCOLS["idc_mnist"], PROTOCOLS["idc_svhn_ipc1"]
    assert (mnist.cutmix, svhn.cutmix) == (0, 0) and mnist.plan(9, True) == svhn.plan(9, True) == IDC.plan(9, True)
    assert mnist.augmentation(digits, "convnet3") == IDCAugment("color_crop_scale_rotate")
    assert svhn.augmentation(digits, "convnet3") == IDCAugment("color_crop_cutout_scale_rotate")


def test_plan__epochs_follow_the_published_rule_when_shortened():
    short = DM.shortened(epochs=4)
    plan = short.plan(300, augmented=True)
    assert (plan.steps, plan.drops) == (5 * 2, (4 * 2,))  # passes 0..4, the drop after pass 4 // 2 + 1
    assert short.smoke


def test_plan__steps_cut_the_schedule():
    plan = DC.shortened(steps=100).plan(500, augmented=False)
    assert plan.steps == 100
    assert plan.drops == (152 * 2 * 100 // (301 * 2),)


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


def test_shortened__its_name_says_to_what():
    steps, epochs = CHALLENGE.shortened(steps=4000), DM.shortened(epochs=60)
    assert (steps.name, steps.steps, steps.smoke) == ("challenge_4000_steps", 4000, True)
    assert (epochs.name, epochs.epochs, epochs.smoke) == ("dm_60_epochs", 60, True)
    assert not {steps.name, epochs.name} & PROTOCOLS.keys()


@pytest.mark.parametrize(
    ("protocol", "options", "message"),
    [
        (DM, {"epochs": 0}, "epochs must be >= 1, got 0"),
        (DM, {"steps": 0}, "steps must be >= 1, got 0"),
        (DM, {"epochs": 1, "steps": 1}, "not both"),
        (QUICK, {"epochs": 1}, "counts iterations"),
    ],
)
def test_shortened__refuses(protocol, options, message):
    with pytest.raises(InputError, match=message):
        protocol.shortened(**options)


def test_augmentation__dsa_without_flip_for_digits(digits):
    assert DM.augmentation(digits, "convnet3") == DSAugment("color_crop_cutout_scale_rotate")


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
