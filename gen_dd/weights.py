"""A trained model on the disk: a diffusers folder (config.json, safetensors), gendd.json with what it draws, a card."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from core_dd import files
from core_dd.errors import InputError, require
from gen_dd.card import GRID, model_card, write_pipeline
from gen_dd.uvit import UViT

WEIGHTS, CARD = "diffusion_pytorch_model.safetensors", "gendd.json"


def save_model(model: UViT, folder: Path, card: Mapping[str, Any], grid: Path | None = None) -> None:
    """Write weights, configuration, pipeline and card (gendd.json, README.md) into `folder`, atomically as a whole.

    Args:
        model: the network; its EMA weights when training made some.
        card: data, fingerprint, class_names, and what else describes the model.
        grid: a picture of samples to lay beside it.
    """
    with files.atomic(folder) as temporary:
        model.save_pretrained(temporary)
        write_pipeline(temporary)
        (temporary / CARD).write_text(json.dumps(dict(card), indent=2) + "\n")
        if grid is not None:
            shutil.copyfile(grid, temporary / GRID)
        (temporary / "README.md").write_text(model_card(card, model.config, grid is not None), encoding="utf-8")


def load_model(folder: str | Path) -> tuple[UViT, dict[str, Any]]:
    """Read a model folder in evaluation mode: also the `model/` in a run folder, or the `unet/` in a saved pipeline.

    Returns:
        The network, and its card with the weights' digest added as "weights".

    Raises:
        InputError: if there is no model, or its files are damaged or another architecture's.
    """
    folder = Path(folder)
    folder = next((folder / inner for inner in ("model", "unet") if (folder / inner).is_dir()), folder)
    weights = sorted(folder.glob(f"{Path(WEIGHTS).stem}*.safetensors"))  # large ones are saved in shards
    require(
        bool(weights) and (folder / "config.json").is_file(),
        f"no model at {folder}. Expected config.json and {WEIGHTS}, as gendd train writes them under RUN/model (or a "
        "saved pipeline has them under unet).",
    )
    name = files.read_json(folder / "config.json").get("_class_name")
    require(name == "UViT", f"{folder} holds a {name}, expected a UViT.")
    try:
        model, missing = UViT.from_pretrained(folder, output_loading_info=True, low_cpu_mem_usage=False)
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"cannot read {weights[0]}: {error}. It is damaged or another network's.") from None
    wrong = [key for kind in missing.values() for key in kind]
    require(not wrong, f"{weights[0]} does not fit its config.json: {', '.join(map(str, wrong[:3]))}.")
    card = files.read_json(folder / CARD) if (folder / CARD).is_file() else {}
    if card.get("train", {}).get("label_dropout") == 0:
        model.register_to_config(null_trained=False)  # older folders say it in their card alone
    digest = hashlib.blake2b(digest_size=8)
    for file in weights:
        digest.update(file.read_bytes())
    return model, card | {"weights": digest.hexdigest()}
