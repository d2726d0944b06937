"""What options say of themselves; that their choices are those there are."""

import importlib
from dataclasses import dataclass, fields

import pytest

from core_dd.commands import COMMANDS, imported
from core_dd.data import images, preprocess
from core_dd.data.options import DATA_CHOICES, PREPROCESS_CHOICES
from core_dd.errors import InputError
from core_dd.judge import options as judge
from core_dd.judge.choose import CHOOSERS
from core_dd.judge.networks import NETWORKS, build_network
from core_dd.judge.protocols import PROTOCOLS
from core_dd.options import RunConfig, mark, option
from core_dd.sets import options as sets
from core_dd.sets.factor import DECODES
from core_dd.sets.formats import FORMATS, SOFT
from gen_dd import guidance, recipe, solvers, uvit
from gen_dd import options as gen
from matching_dd import METHODS, losses, synthetic
from matching_dd import options as matching
from matching_dd.base import AUGMENT_MODES
from matching_dd.methods import datadam, dc, ead, m3d

AGREE = [
    (PREPROCESS_CHOICES, preprocess.PREPROCESSES),
    (judge.PROTOCOL_CHOICES, PROTOCOLS),
    (judge.CHOOSER_CHOICES, CHOOSERS),
    (sets.LAYOUT_CHOICES, FORMATS),
    (sets.WRITTEN_CHOICES, {name: own for name, own in FORMATS.items() if own.write is not None}),
    (sets.SOFT_CHOICES, SOFT),
    (gen.PRESET_CHOICES, uvit.PRESETS),
    (gen.OPTIMIZER_CHOICES, recipe.OPTIMIZERS),
    (gen.TIME_CHOICES, recipe.TIMES),
    (gen.WEIGHTING_CHOICES, recipe.WEIGHTINGS),
    (gen.SOLVER_CHOICES, solvers.SOLVERS),
    (gen.GUIDE_CHOICES, guidance.GUIDES),
    (matching.METHOD_CHOICES, METHODS),
    (matching.INIT_CHOICES, synthetic.INITS),
    (matching.DECODE_CHOICES, DECODES),
    (matching.SPACE_CHOICES, synthetic.SPACES),
    (matching.AUGMENT_MODE_CHOICES, AUGMENT_MODES),
    (m3d.KERNEL_CHOICES, losses.KERNELS),
    (datadam.NORM_CHOICES, losses.MAP_NORMS),
    (datadam.ATTENTION_CHOICES, losses.MAP_DISTANCES),
    (dc.DISTANCE_CHOICES, losses.GRADIENT_DISTANCES),
    (ead.COEFFICIENT_CHOICES, losses.EFFECT_COEFFICIENTS),
]


@pytest.mark.parametrize(("choices", "registry"), AGREE, ids=lambda names: ",".join(names)[:30])
def test_choices__are_the_registry(choices, registry):
    assert set(choices) == set(registry)
    assert all(line and "\n" not in line for line in choices.values())


def test_choices__of_data_and_networks_are_examples_that_work():
    named = {name.partition(":")[0] for name in DATA_CHOICES}
    assert named == {*images.DATASETS, *images.FORMATS}
    networks = {name for name in judge.NETWORK_CHOICES if ":" not in name}  # timm:NAME, package.module:function
    assert networks >= {name for name in NETWORKS if not name.startswith("convnet")}
    for name in networks:
        build_network(name, (3, 32, 32), 10)


@pytest.mark.parametrize("command", COMMANDS)
def test_renamed__options_that_had_other_names_exist_and_the_old_ones_do_not(command):
    cls = imported(COMMANDS[command].options)
    names = {own.name for own in fields(cls)}
    assert names.issuperset(cls.RENAMED.values()) and names.isdisjoint(cls.RENAMED)


@dataclass(kw_only=True)
class Base(RunConfig):
    kind: str = option("a", choices={"a": "", "b": ""})
    steps: int = option(1, free_on_resume=True)


@dataclass(kw_only=True)
class Config(Base):
    kind: str = "b"
    steps: int = option(2, group="speed")


def test_marks__are_kept_by_a_field_that_overrides():
    assert mark(Config, "kind", "choices").keys() == {"a", "b"}
    assert mark(Config, "steps", "free_on_resume") and mark(Config, "steps", "group") == "speed"
    assert mark(Base, "steps", "group") is None and mark(Config, "seed", "free_on_resume") is None
    with pytest.raises(InputError, match="unknown kind 'c'"):
        Config(kind="c")


@pytest.mark.parametrize("name", ["log_every", "checkpoint_every", "keep"])
def test_run_config__counts_from_one(name):
    with pytest.raises(InputError, match=f"{name} must be >= 1, got 0"):
        RunConfig(**{name: 0})


def test_methods__have_options_of_their_own_under_their_name():
    for name, method in METHODS.items():
        assert issubclass(method.Config, matching.MatchingConfig)
        assert method.Config.GROUP in (name, "dc"), name  # DSA has none of its own


def test_options_modules__are_what_commands_reexport():
    for module, name in (("gen_dd.train", "TrainConfig"), ("gen_dd.sample", "SampleConfig")):
        assert getattr(importlib.import_module(module), name) is getattr(gen, name)
