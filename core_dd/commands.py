"""The commands of the console `gendd`, by dotted names: nothing is imported before it is wanted."""

import importlib
from types import MappingProxyType
from typing import Any, NamedTuple


class Command(NamedTuple):
    """A command of the console."""

    function: str
    """What it calls with the arguments, as module:name."""
    options: str
    """Its config class, as module:name of a module that imports no torch, so that --help need not wait for that."""
    meaning: str
    """What it does, in a line."""
    variants: str = ""
    """Classes by name whose `Config` derives from that and has options of its own, as module:name."""


COMMANDS = MappingProxyType(
    {
        "train": Command(
            "gen_dd.train:main", "gen_dd.options:TrainConfig", "train a class-conditional U-ViT on real images"
        ),
        "tune": Command(
            "gen_dd.tune:main",
            "gen_dd.options:TuneConfig",
            "tune it into a consistency model, to draw in two steps",
        ),
        "sample": Command(
            "gen_dd.sample:main",
            "gen_dd.options:SampleConfig",
            "draw labelled, class-balanced images from it inside a time budget",
        ),
        "select": Command(
            "gen_dd.select:main", "gen_dd.options:SelectConfig", "choose ipc images per class from a generated pool"
        ),
        "submit": Command(
            "core_dd.judge.submit:main",
            "core_dd.judge.options:SubmitConfig",
            "hand in a set to the ECCV 2024 challenge, checked and scored",
        ),
        "challenge": Command(
            "gen_dd.challenge:main",
            "gen_dd.options:ChallengeConfig",
            "a whole submission to it from two trained models: drawn, chosen, verified, scored",
        ),
        "distill": Command(
            "matching_dd.distill:main",
            "matching_dd.options:MatchingConfig",
            "learn ipc images per class by matching real data",
            variants="matching_dd.methods:METHODS",
        ),
        "experts": Command(
            "matching_dd.experts:main",
            "matching_dd.options:ExpertsConfig",
            "record training trajectories on real data, for mtt and ead",
        ),
        "coreset": Command(
            "matching_dd.coresets:main", "matching_dd.options:CoresetConfig", "choose ipc real images per class"
        ),
        "evaluate": Command(
            "core_dd.judge.evaluate:main",
            "core_dd.judge.options:EvaluateConfig",
            "train classifiers on a set and score them on the real test set",
        ),
        "compare": Command(
            "core_dd.compare.compare:main",
            "core_dd.compare.options:CompareConfig",
            "make, judge and tabulate many sets by one file",
        ),
        "rank-networks": Command(
            "core_dd.compare.ranks:main",
            "core_dd.compare.options:RankConfig",
            "rank networks by training on small sets, beside their ranking on real images",
        ),
        "report": Command(
            "core_dd.report.report:main",
            "core_dd.report.options:ReportConfig",
            "turn many scores into report.md and report.html",
        ),
        "convert": Command(
            "core_dd.judge.convert:main",
            "core_dd.sets.options:ConvertConfig",
            "bring a set of other people's code into our file",
        ),
        "export": Command(
            "core_dd.sets.export:main", "core_dd.sets.options:ExportConfig", "write a set in the layout of another code"
        ),
        "info": Command(
            "core_dd.info:main", "core_dd.info:InfoConfig", "say what a distilled set, a run folder or a dataset is"
        ),
    }
)


def imported(target: str) -> Any:
    """What `module:name` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
