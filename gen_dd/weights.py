"""A trained model on the disk: a diffusers folder (config.json, safetensors), gendd.json with what it draws, a card."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Required, TypedDict

from safetensors import SafetensorError, safe_open
from torch import Tensor

from core_dd import files, records
from core_dd.data.images import ImageData
from core_dd.errors import InputError, require
from core_dd.sets.learnt import Learnt
from core_dd.wrappers import unwrapped
from gen_dd.card import GRID, model_card, write_pipeline
from gen_dd.checkpoint import check_weights, infer_config
from gen_dd.uvit import UViT, blank, fill

WEIGHTS, CARD = "diffusion_pytorch_model.safetensors", "gendd.json"


class _TrainedBy(TypedDict, total=False):
    """Of the training's configuration, what is used again; the rest stands beside it."""

    data: str
    image_size: int | None
    limit_per_class: int | None
    test_fraction: float
    val_fraction: float
    seed: int
    label_dropout: float


class Card(TypedDict, total=False):
    """What gendd.json holds."""

    data: str | None
    fingerprint: str | None
    class_names: list[str] | None
    step: int
    train: _TrainedBy
    metrics: dict[str, float]
    learnt: Learnt | None


class _NetworkConfig(TypedDict, total=False):
    """What config.json holds: the constructor arguments of `UViT`; all but the heads can be told from the weights."""

    image_size: int
    patch_size: int
    in_channels: int
    hidden_size: int
    depth: int
    num_heads: Required[int]
    mlp_ratio: float
    num_classes: int | None
    qkv_bias: bool
    mlp_time_embed: bool
    final_conv: bool
    null_trained: bool
    consistency: bool


class _Kind(TypedDict):
    """Whose configuration a config.json is."""

    _class_name: str


class _Tuned(TypedDict, total=False):
    """Which kind of model a config.json is of."""

    consistency: bool


class _Shards(TypedDict):
    """The index of weights that lie in several files: tensor -> file."""

    weight_map: dict[str, str]


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
        (temporary / CARD).write_text(files.json_text(dict(card), indent=2) + "\n", encoding="utf-8")
        if grid is not None:
            shutil.copyfile(grid, temporary / GRID)
        (temporary / "README.md").write_text(model_card(card, model.config, grid is not None), encoding="utf-8")


def amend_card(folder: Path, **more: Any) -> None:
    """Add to the card of a model folder what was found out after it was written."""
    card, config = records.read(folder / CARD, Card) | more, records.read(folder / "config.json", dict[str, Any])
    files.write_text(folder / "README.md", model_card(card, config, (folder / GRID).is_file()))
    files.write_json(folder / CARD, card)


def load_model(folder: str | Path) -> tuple[UViT, dict[str, Any]]:
    """Read a model folder in evaluation mode: also the `model/` in a run folder, or the `unet/` in a saved pipeline.

    Weights come from safetensors alone, and are compared with config.json before memory is taken for a network.

    Returns:
        The network in float32, and its card with the digest of the files that the weights were read from, as "weights".

    Raises:
        InputError: if there is no model, or its files are damaged, another architecture's, or do not fit each other;
            or weights that are not finite.
    """
    folder = _model_folder(folder)
    sources, hint = _weight_files(folder), f"Expected a model folder as gendd train writes it, got {folder}."
    config = records.read(folder / "config.json", dict[str, Any], hint)
    name = records.checked(config, _Kind, f"{folder / 'config.json'}", hint)["_class_name"]
    require(name == "UViT", f"{folder} holds a {name}, expected a UViT.")
    state = _read_weights(sources)
    model = blank(**_network_config(folder / "config.json", config, state, hint))
    check_weights(state, str(sources[0]))
    try:
        fill(model, state)
    except RuntimeError as error:
        why = " ".join(str(error).split())[:300]
        raise InputError(
            f"{sources[0]} does not fit its config.json: {why}. It is damaged or another network's."
        ) from None
    card = records.read(folder / CARD, Card, hint) if (folder / CARD).is_file() else {}
    names, classes = card.get("class_names"), model.config.num_classes
    require(
        names is None or len(names) == classes,
        f"{folder / CARD} names {len(names or ())} classes, but the network has {classes}. {hint}",
    )
    if card.get("train", {}).get("label_dropout") == 0:
        model.register_to_config(null_trained=False)  # older folders say it in their card alone
    digest = hashlib.blake2b(digest_size=8)
    for file in sources:
        digest.update(file.read_bytes())
    return model.eval(), card | {"weights": digest.hexdigest()}


def check_data(model: UViT, card: Mapping[str, Any], data: ImageData, spec: str, option: str) -> None:
    """Refuse data that a model was not trained on, by its classes and images and by the fingerprint in its card.

    Args:
        model, card: what `load_model` gives; a network saved without a card has no fingerprint.
        data, spec: the real data, and how they are spelled.
        option: which option names them.

    Raises:
        InputError: for others.
    """
    own = model.config
    kinds = [(own.num_classes, own.in_channels, own.image_size, own.image_size), (data.num_classes, *data.shape)]
    has, wants = (f"{kind[0]} classes of {'x'.join(map(str, kind[1:]))} pixels" for kind in reversed(kinds))
    known = card.get("data") or "data that its card does not name"
    require(
        card.get("fingerprint") in (None, data.fingerprint) and kinds[0] == kinds[1],
        f"the model was trained on {known}, and {spec} is other data"
        + (f": {has}, and the model draws {wants}" if kinds[0] != kinds[1] else "")
        + f". Pass its own as --{option}.",
    )


def is_tuned(folder: str | Path) -> bool:
    """Whether a folder that `load_model` reads holds a consistency model, by its config.json alone.

    Raises:
        InputError: no config.json there, or a damaged one.
    """
    place = _model_folder(folder) / "config.json"
    return bool(records.read(place, _Tuned, "Expected a model folder as gendd train writes it.").get("consistency"))


def _model_folder(folder: str | Path) -> Path:
    """Where the files lie: in a run folder or a saved pipeline one below."""
    folder = Path(folder)
    return next((folder / inner for inner in ("model", "unet") if (folder / inner).is_dir()), folder)


def _weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights: the plain one, those its index names, or the one of a variant (fp16).

    Raises:
        InputError: if there is none, or several variants.
    """
    stem, index = Path(WEIGHTS).stem, folder / f"{WEIGHTS}.index.json"
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if index.is_file():
        names = sorted(set(records.read(index, _Shards, "Save the model again.")["weight_map"].values()))
        for name in names:
            require(
                name == Path(name).name, f"{index} names '{name}', which is no file beside it. Save the model again."
            )
        return [folder / name for name in names]
    variants = sorted(folder.glob(f"{stem}.*.safetensors"))
    require(len(variants) < 2, f"{folder} holds several weights: {', '.join(v.name for v in variants)}. Keep one.")
    pickles = " Pickled weights (.bin) are never read; convert them." if any(folder.glob(f"{stem}*.bin")) else ""
    require(
        bool(variants) and (folder / "config.json").is_file(),
        f"no model at {folder}. Expected config.json and {WEIGHTS}, as gendd train writes them under RUN/model (or a "
        f"saved pipeline has them under unet).{pickles}",
    )
    return variants


def _read_weights(sources: list[Path]) -> dict[str, Tensor]:
    """The tensors of several safetensors files together, memory-mapped, by the names of a network that is not wrapped.

    Raises:
        InputError: a file that is missing or damaged, or two that hold a tensor of one name.
    """
    state: dict[str, Tensor] = {}
    for file in sources:
        try:
            with safe_open(file, framework="pt") as content:
                own = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (not a mapping)
        except (SafetensorError, OSError, ValueError, LookupError, AttributeError) as error:
            raise InputError(f"cannot read {file}: {error}. It is damaged or another network's.") from None
        twice = state.keys() & own.keys()
        require(not twice, f"{file} holds {min(twice, default='')} again, which another file has. It is damaged.")
        state |= own
    return unwrapped(state)


def _network_config(place: Path, config: Mapping[str, Any], state: Mapping[str, Tensor], hint: str) -> dict[str, Any]:
    """The arguments of the network, from its config.json as far as that agrees with the shapes of its weights.

    Raises:
        InputError: a key that is missing, unknown or of another type, or a size that the weights do not have.
    """
    own = {name: value for name, value in config.items() if not name.startswith("_")}
    unknown = sorted(own.keys() - _NetworkConfig.__annotations__.keys())
    require(not unknown, f"{place} has {', '.join(unknown[:3])}, which a UViT has not: it is another network's. {hint}")
    records.checked(own, _NetworkConfig, str(place), hint)
    found = infer_config(state, f"what lies beside {place}")
    labels = state.get("label_emb.weight")
    found["num_classes"] = None if labels is None else len(labels) - 1
    del found["num_heads"]  # the shapes do not tell
    for name, value in found.items():
        said = own.get(name, value)
        same = abs(said - value) * found["hidden_size"] < 1 if name == "mlp_ratio" else said == value
        require(
            same,
            f"{place} says {name} {said}, but the weights beside it have {value}: they are another network's. {hint}",
        )
    heads = own["num_heads"]
    require(
        heads >= 1 and found["hidden_size"] % heads == 0,
        f"{place} says num_heads {heads}, which does not divide the width {found['hidden_size']}. {hint}",
    )
    return found | own
