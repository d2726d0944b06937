"""Every setting of every file in configs/ is accepted by its command, and its number is one of the published."""

import re
from functools import cache
from typing import Any

import pytest
from commands import HOMES, ROOT, accepted, load

from core_dd.config import from_values, load_config, read_config
from core_dd.judge import habits
from core_dd.report import published
from core_dd.settings import CONFIGS, ConfigFile, packaged
from matching_dd.methods import METHODS

MATCHING = packaged("matching")
REQUIRED = {"tune": ["--init_from", "run"], "evaluate": ["--out=x"]}


@cache
def file(variant: str) -> ConfigFile:
    return read_config(MATCHING[variant])


@cache
def config(variant: str, data: str, ipc: int) -> Any:
    """What the command takes (see `test_settings__are_what_the_command_takes`), without reading the file each time."""
    cls = METHODS[file(variant).common["method"]].Config
    return from_values(cls, file(variant).chosen(data, ipc), str(MATCHING[variant]))


def configs(variant: str) -> dict[tuple[str, int], Any]:
    """The config of every setting of a file, by the name of its data and ipc."""
    return {(data, ipc): config(variant, data, ipc) for data, ipc in file(variant).settings}


def test_packaged__are_the_files_of_the_repository():
    assert CONFIGS.resolve() == ROOT / "configs"
    assert MATCHING.keys() == {
        "cafe", "cafe_dsa", "datadam_code", "datadam_fast", "datadam_paper", "dc", "dm", "dm_fast", "dsa", "ead", "idc",
        "idc_i", "idm", "m3d", "m3d_fast", "mtt",
    }  # fmt: skip


@pytest.mark.parametrize("command", [command for command in HOMES if command != "distill"])
def test_config__is_accepted_by_its_name(command):
    names = packaged(HOMES[command])
    assert names
    for name in names:
        accepted([command, *REQUIRED.get(command, []), "--config", name])


@pytest.mark.parametrize("variant", MATCHING)
def test_settings__are_what_the_command_takes(variant):
    for data, ipc in {*list(file(variant).settings)[:: len(file(variant).settings) - 1 or 1]}:
        own = config(variant, data, ipc)
        assert own == load_config(type(own), ["--config", f"{variant}:{data}", "--ipc", str(ipc)], home="matching")


@pytest.mark.parametrize("variant", MATCHING)
def test_settings__name_what_they_are_and_what_was_published(variant):
    for (data, ipc), found in configs(variant).items():
        assert variant.startswith(found.method) and found.ipc == ipc and found.data.partition(":")[0] == data
        if (number := file(variant).published[data, ipc]) is not None:
            mean, std = re.fullmatch(r"([\d.]+)(?: \+- ([\d.]+))?", number).groups()
            printed = {(row.percent, row.std) for row in published.rows(data, ipc)}
            assert (float(mean), float(std) if std else None) in printed, (data, ipc)


def test_settings__without_a_number_are_those_that_our_sources_do_not_report():
    missing = {
        (variant, data)
        for variant in MATCHING
        for (data, _), number in file(variant).published.items()
        if number is None and data != "digits"
    }
    unreported = {
        "datadam_paper": ("mnist", "fashion_mnist", "svhn", "imagenette", "imagewoof", "imagesquawk"),
        "datadam_code": ("mnist",),
        "ead": ("svhn", "tiny_imagenet"),
        "idm": ("tiny_imagenet",),
        "m3d": ("tiny_imagenet", *(f"imagenet100_{part}" for part in range(5))),
        "mtt": ("tiny_imagenet",),
    }
    assert missing == {(variant, data) for variant, names in unreported.items() for data in names}


@pytest.mark.parametrize("variant", ["datadam_paper", "ead", "m3d"])
def test_settings__of_mnist_svhn_and_tiny_imagenet(variant):
    """Facts A2, A3 and B: small images by the defaults, 64 pixels with ConvNet-4; DataDAM's lambda there is 0.02."""
    ipcs = {"ead": (1,)}.get(variant, (1, 10, 50))
    for data in ("mnist", "svhn", "tiny_imagenet"):
        for ipc in ipcs:
            found, tiny = config(variant, data, ipc), data == "tiny_imagenet"
            assert found.network == ("convnet4" if tiny else "convnet3") and found.preprocess == "mean_std"
            if variant == "datadam_paper":
                facts = (found.p, found.lr_img, found.iterations, found.batch_real, found.mmd_weight)
                assert facts == (4.0, 1.0, 8000, 256, 0.02 if tiny else 0.01)
            if variant == "m3d":
                assert (found.lr_img, found.iterations, found.factor, found.ipm) == (1.0, 10000, 2, 5)


def test_settings__of_datadam_as_its_code_runs_it():
    """Facts A2: ConvNet is with batch norm there, ConvNet-4 is not."""
    for (data, _), found in configs("datadam_code").items():
        assert found.network == ("convnet4" if data == "tiny_imagenet" else "convnet3_bn")
        assert (found.p, found.iterations, found.batch_real, found.mmd_weight) == (1.0, 20000, 64, 0.01)


def test_settings__of_imagenet_subsets():
    """Facts A2, A3 and A7: IDC and M3D on ResNetAP-10 at 224 pixels, DataDAM on ConvNet-5 at 128."""
    m3d = {key: own for key, own in configs("m3d").items() if key[0].startswith("imagenet")}
    assert {data for data, _ in m3d} == {"imagenet10", *(f"imagenet100_{part}" for part in range(5))}
    for found in m3d.values():
        facts = (found.network, found.image_size, found.iterations, found.lr_img, found.factor, found.ipm)
        assert facts == ("resnetap10", 224, 1000, 0.1, 3, 5)
    for variant, factor in (("idc", 3), ("idc_i", 1)):
        for ipc in (10, 20):
            found = config(variant, "imagenet10", ipc)
            assert (found.network, found.image_size, found.side_img) == ("resnetap10", 224, 224)
            assert (found.distance, found.lr_img, found.real_net, found.iterations) == ("l1", 0.003, 500, 500)
            assert (found.pretrain, found.cutmix, found.factor) == (10, 1.0, factor)
            assert found.decode == ("bound" if (factor, ipc) == (3, 20) else "single")
    for data in ("imagenette", "imagewoof", "imagesquawk"):
        found = config("datadam_paper", data, 10)
        assert (found.network, found.image_size, found.mmd_weight) == ("convnet5", 128, 0.02)


@pytest.mark.parametrize("variant", MATCHING)
def test_settings__of_cifar100_are_normalised_as_their_authors_do(variant):
    """Facts D6: the codes of IDC (and so M3D) and of MTT have CIFAR-10's constants there, the others its own."""
    for (data, ipc), found in configs(variant).items():
        expected = "cifar10_mean_std" if found.method in ("idc", "m3d", "mtt") else "mean_std"
        assert data != "cifar100" or found.preprocess in (expected, "zca"), ipc


@pytest.mark.parametrize(("name", "points"), [("cifar100_paper", 80), ("tiny_imagenet_paper", 117)])
def test_paper_recipes__evaluate_as_often_as_their_figure_3_shows(name, points):
    """ "80 000 epochs" and its evaluations in one unit, iterations."""
    recipe = load("train", ["--config", name])
    assert recipe.iterations == 1000 * points and recipe.iterations / recipe.eval_every == points


@pytest.mark.parametrize("name", packaged("smoke"))
def test_smoke_config__is_accepted_alone_and_after_the_published_ones(name):
    smoke = ["--config", f"smoke/{name}"]
    if name == "experts":
        return accepted(["experts", *smoke])
    accepted(["distill", "--method", name, *smoke])
    variants = [variant for variant in MATCHING if file(variant).common["method"] == name]
    assert variants
    for variant in variants:
        for data, ipc in list(file(variant).settings)[-1:]:
            accepted(["distill", "--config", f"{variant}:{data}", "--ipc", str(ipc), *smoke])


TESTED = {"mtt": lambda config: 100, "datadam_code": lambda config: 2000, "idm": lambda config: config.accuracy_every}
"""Iterations between the tests of which the authors report the best, by protocol."""


@pytest.mark.parametrize("protocol", [name for name, habit in habits.HABITS.items() if habit.sets])
def test_settings__keep_every_set_that_their_authors_test(protocol):
    for (data, _), found in configs(protocol).items():
        if data != "digits":
            assert found.checkpoint_every == TESTED[protocol](found), found
            assert found.keep * found.checkpoint_every == found.iterations, found


def test_mtt_settings__fit_the_experts_they_name():
    named = re.findall(r"# experts (\w+)", MATCHING["mtt"].read_text())
    for found, name in zip(configs("mtt").values(), named, strict=True):
        experts = load("experts", ["--config", name])
        for field in ("data", "network", "preprocess"):
            assert getattr(experts, field) == getattr(found, field)
        assert found.max_start_epoch - 1 + found.expert_epochs <= experts.epochs
