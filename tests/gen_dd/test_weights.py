"""A model folder is believed only as far as its files agree: weights, configuration, card."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core_dd.errors import InputError
from core_dd.files import write_json
from core_dd.records import read
from gen_dd.sample import sample
from gen_dd.uvit import UViT
from gen_dd.weights import CARD, WEIGHTS, load_model, save_model

CONFIG = "config.json"


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    model = UViT.from_preset("tiny", num_classes=10)
    save_model(model, tmp_path / "model", {"data": "digits", "class_names": list("0123456789")})
    return tmp_path / "model"


def config(**changes):
    """Change config.json; a value of None takes the key out."""

    def change(folder: Path) -> None:
        content = read(folder / CONFIG) | changes
        write_json(folder / CONFIG, {key: value for key, value in content.items() if value is not None})

    return change


def card(**changes):
    return lambda folder: write_json(folder / CARD, read(folder / CARD) | changes)


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def weights(**changes):
    """Change tensors, their names with __ for dots."""

    def change(folder: Path) -> None:
        changed = {name.replace("__", "."): tensor for name, tensor in changes.items()}
        save_file(load_file(folder / WEIGHTS) | changed, folder / WEIGHTS)

    return change


REFUSED = {
    "depth that never ends": (config(depth=10**7), "says depth 10000000, but the weights beside it have 4"),
    "no depth left": (config(depth=0), "says depth 0, but the weights"),
    "negative depth": (config(depth=-4), "says depth -4"),
    "no heads": (config(num_heads=0), "says num_heads 0, which does not divide the width 96"),
    "negative heads": (config(num_heads=-4), "says num_heads -4"),
    "heads that do not divide": (config(num_heads=5), "says num_heads 5"),
    "heads left out": (config(num_heads=None), "object missing required field num_heads"),
    "heads in words": (config(num_heads="four"), "at num_heads: expected int, got str"),
    "absurd width": (config(hidden_size=10**9), "says hidden_size 1000000000"),
    "absurd image": (config(image_size=10**6), "says image_size 1000000"),
    "absurd channels": (config(in_channels=10**6), "says in_channels 1000000"),
    "absurd mlp": (config(mlp_ratio=1e300), "says mlp_ratio"),
    "absurd classes": (config(num_classes=10**9), "says num_classes 1000000000, but the weights beside it have 10"),
    "biases it has not": (config(qkv_bias=True), "says qkv_bias True"),
    "no last convolution": (config(final_conv=False), "says final_conv False"),
    "another class": (config(_class_name="DiTTransformer2DModel"), "holds a DiTTransformer2DModel, expected a UViT"),
    "no class": (config(_class_name=None), "object missing required field _class_name"),
    "class that is no name": (config(_class_name=3), "expected str, got int"),
    "unknown key": (config(rope=True), "has rope, which a UViT has not"),
    "list as config": (text(CONFIG, "[]"), "config.json: expected object, got array"),
    "null as config": (text(CONFIG, "null"), "config.json: expected object, got null"),
    "cut config": (text(CONFIG, '{"depth": 4'), "config.json is not valid JSON"),
    "nan in config": (text(CONFIG, '{"_class_name": "UViT", "mlp_ratio": NaN}'), "config.json is not valid JSON"),
    "nested config": (text(CONFIG, "[" * 10**5), "config.json is not valid JSON"),
    "class names that are a number": (card(class_names=10), "gendd.json at class_names: expected array"),
    "too few class names": (card(class_names=["a"]), "gendd.json names 1 classes, but the network has 10"),
    "too many class names": (card(class_names=list("0123456789a")), "gendd.json names 11 classes"),
    "class names of numbers": (card(class_names=list(range(10))), r"at class_names\[0\]: expected str, got int"),
    "recipe that is a list": (card(train=[]), "gendd.json at train: expected object"),
    "dropout in words": (card(train={"label_dropout": "none"}), "at train.label_dropout: expected float"),
    "metrics in words": (card(metrics={"fid": "low"}), "expected float, got str"),
    "string as card": (text(CARD, '"digits"'), "gendd.json: expected object, got str"),
    "nan weights": (weights(norm__bias=torch.full((96,), torch.nan)), "norm.bias has values that are not finite"),
    "infinite weights": (weights(norm__bias=torch.full((96,), -torch.inf)), "norm.bias has values that are not finite"),
    "integer weights": (weights(norm__bias=torch.zeros(96, dtype=torch.int8)), "its norm.bias is torch.int8"),
    "weights of another shape": (weights(norm__bias=torch.zeros(95)), "does not fit its config.json"),
    "weights beyond its own": (weights(more=torch.zeros(1)), "does not fit its config.json"),
    "empty weights": (lambda folder: (folder / WEIGHTS).write_bytes(b""), "cannot read .*It is damaged"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=list(REFUSED))
def test_load_model__refuses(folder, change, message):
    change(folder)
    with pytest.raises(InputError, match=message) as refused:
        load_model(folder)
    assert "model" in str(refused.value) and len(str(refused.value)) < 800


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_load_model__saved_from_a_compiled_or_parallel_network(folder, prefix):
    own = load_file(folder / WEIGHTS)
    save_file({prefix + name: tensor for name, tensor in own.items()}, folder / WEIGHTS)
    state = load_model(folder)[0].state_dict()
    assert state.keys() == own.keys() and all(torch.equal(state[name], tensor) for name, tensor in own.items())


def test_load_model__the_weights_used_are_the_weights_hashed(folder):
    """A pickle beside a variant is not looked at: it may not even be one."""
    own, digest = load_file(folder / WEIGHTS), load_model(folder)[1]["weights"]
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"no pickle")
    assert load_model(folder)[1]["weights"] == digest
    (folder / WEIGHTS).unlink()
    with pytest.raises(InputError, match=r"no model at .*Pickled weights \(\.bin\) are never read"):
        load_model(folder)
    half = {name: tensor.half() for name, tensor in own.items()}
    save_file(half, folder / "diffusion_pytorch_model.fp16.safetensors")
    model, found = load_model(folder)
    assert found["weights"] != digest and model.dtype == torch.float32 and not model.training
    assert all(torch.equal(tensor, half[name].float()) for name, tensor in model.state_dict().items())
    save_file(half, folder / "diffusion_pytorch_model.bf16.safetensors")
    with pytest.raises(InputError, match="holds several weights"):
        load_model(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"norm.weight": "../a.safetensors"}}, "names '../a.safetensors', which is no file beside it"),
        ({"weight_map": {"norm.weight": "gone.safetensors"}}, "cannot read .*gone.safetensors"),
        ({"weight_map": ["a"]}, "at weight_map: expected object"),
        ([], "expected object, got array"),
    ],
)
def test_load_model__refuses_an_index_of_other_files(folder, index, message):
    (folder / WEIGHTS).unlink()
    write_json(folder / f"{WEIGHTS}.index.json", index)
    with pytest.raises(InputError, match=message):
        load_model(folder)


def test_sample__says_when_it_draws_nothing(folder, capsys):
    model, _ = load_model(folder)
    options = {"num_per_class": 1, "steps": 2, "device": "cpu"}
    sample(model, **options)
    assert "of one colour" not in capsys.readouterr().err
    torch.nn.init.zeros_(model.final_layer.weight)
    torch.nn.init.constant_(model.final_layer.bias, 1e4)
    sample(model, **options)
    assert capsys.readouterr().err.count("each of 10 images drawn is of one colour") == 1
    torch.nn.init.constant_(model.final_layer.bias, torch.nan)
    with pytest.raises(InputError, match="draws values that are not finite"):
        sample(model, **options)


def test_load_model__takes_no_memory_for_weights_that_are_not_in_the_file(folder, monkeypatch):
    made = []
    monkeypatch.setattr(UViT, "_initialise", lambda self: made.extend(own.device.type for own in self.parameters()))
    again, _ = load_model(folder)
    assert set(made) == {"meta"} and not any(own.is_meta or own.dtype != torch.float32 for own in again.parameters())
    assert all(own.requires_grad for own in again.parameters())
