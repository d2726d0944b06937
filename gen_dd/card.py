"""What stands beside a model's weights so that others can use it: a model card, and what diffusers wants to load it."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from gen_dd.solvers import ExactDPMSolver, make_scheduler

GRID = "grid.png"
"""The picture of samples beside the weights, where one was made."""

_INDEX = {
    "_class_name": "UViTPipeline",
    "_diffusers_version": version("diffusers"),
    "unet": ["gen_dd.uvit", "UViT"],
    "scheduler": ["gen_dd.solvers", "ExactDPMSolver"],
}
"""model_index.json: diffusers finds both components in the folder itself."""


def write_pipeline(folder: Path) -> None:
    """Make a model folder one that `DiffusionPipeline.from_pretrained` reads: scheduler, index, the class's import."""
    make_scheduler(ExactDPMSolver, 2).save_pretrained(folder)
    (folder / "model_index.json").write_text(json.dumps(_INDEX, indent=2) + "\n")
    (folder / "pipeline.py").write_text("from gen_dd.pipeline import UViTPipeline  # noqa: F401\n")


def model_card(card: Mapping[str, Any], config: Mapping[str, Any], grid: bool) -> str:
    """The README.md of a model folder: use, data, recipe, metrics, licence.

    Args:
        card: what gendd.json holds; parts it lacks are left out.
        config: the network's.
        grid: whether a picture of samples lies beside it.
    """
    size, name = config["image_size"], card.get("data") or "unnamed data"
    tuned = config.get("consistency")
    kind, steps, flags = ("consistency", 2, " --solver consistency --steps 2") if tuned else ("diffusion", 50, "")
    head = {
        "license": "apache-2.0",
        "library_name": "diffusers",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["u-vit", "class-conditional", "dataset-distillation"],
    }
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# U-ViT, {name} {size}x{size}",
        f"A class-conditional {kind} model in pixel space (U-ViT, Bao et al., CVPR 2023): {config['num_classes']} "
        f"classes, {config['in_channels']} channels, width {config['hidden_size']}, depth {config['depth']}, "
        f"patches of {config['patch_size']}. The weights are the moving average of the training.",
        *([f"![samples, a class per row]({GRID})"] if grid else []),
        "## Use",
        "```python\nfrom diffusers import DiffusionPipeline\n\n"
        'pipeline = DiffusionPipeline.from_pretrained("FOLDER", custom_pipeline="pipeline", trust_remote_code=True)\n'
        f"images = pipeline([0, 1, 2], num_inference_steps={steps}).images\n```",
        f"It needs the package `gendd`; `gendd sample --model FOLDER{flags} --budget 60s --out POOL` draws many.",
        "## Data",
        f"{name}, fingerprint `{card.get('fingerprint')}`; pixels in [-1, 1].\n\n"
        f"Classes, in the order of their labels: {', '.join(card.get('class_names') or ['not recorded'])}.",
    ]
    if card.get("train"):
        length = f"{card['step']} steps. " if "step" in card else ""
        recipe = yaml.safe_dump(dict(card["train"]), sort_keys=False)
        parts += ["## Recipe", f"{length}Everything else of the configuration:", f"```yaml\n{recipe}```"]
    if card.get("metrics"):
        rows = [f"| {key} | {value:.6g} |" for key, value in card["metrics"].items()]
        parts += ["## Metrics", "\n".join(["| measure | value |", "|---|---|", *rows])]
        parts += [
            "Of samples drawn in training, against training images (`fid`, `classifier_frechet`) or a validation split "
            "(`val_accuracy`); test images were not looked at."
        ]
    if card.get("learnt"):
        parts += ["## What it learnt", f"After the training, {card['learnt']['said'].removeprefix('learnt: ')}."]
    parts += ["## Licence", "Apache-2.0 for code and weights. The licence of the training data may add to it."]
    return "\n\n".join(parts) + "\n"
