"""Official checkpoints: written here from a plain second implementation of the official network, read back by ours."""

import math

import pytest
import torch
from makers import write_image_folder
from torch import nn
from torch.nn import functional as F

from core_dd.errors import InputError
from gen_dd.checkpoint import adapt, guessed_heads, infer_config, load_official
from gen_dd.options import TrainConfig
from gen_dd.trainer import Trainer
from gen_dd.uvit import UViT

D, DEPTH, HEADS, PATCH, SIDE, CHANNELS = 128, 4, 2, 2, 8, 3  # width 128 has 128 / 64 = 2 heads


class OfficialBlock(nn.Module):
    def __init__(self, skip):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D)
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)
        if skip:
            self.skip_linear = nn.Linear(2 * D, D)

    def forward(self, x, skip=None):
        if skip is not None:
            x = self.skip_linear(torch.cat([x, skip], dim=-1))
        n, length, _ = x.shape
        qkv = self.attn.qkv(self.norm1(x)).reshape(n, length, 3, HEADS, D // HEADS)
        heads = []
        for h in range(HEADS):
            q, k, v = qkv[:, :, 0, h], qkv[:, :, 1, h], qkv[:, :, 2, h]
            heads.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(D // HEADS), dim=-1) @ v)
        x = x + self.attn.proj(torch.cat(heads, dim=-1))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class Official(nn.Module):
    """The official network, written plainly from its description."""

    def __init__(self, classes=None):
        super().__init__()
        tokens = (SIDE // PATCH) ** 2 + (1 if classes is None else 2)
        self.pos_embed = nn.Parameter(torch.randn(1, tokens, D) * 0.02)
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(CHANNELS, D, PATCH, stride=PATCH)
        if classes is not None:
            self.label_emb = nn.Embedding(classes, D)
        self.in_blocks = nn.ModuleList(OfficialBlock(False) for _ in range(DEPTH // 2))
        self.mid_block = OfficialBlock(False)
        self.out_blocks = nn.ModuleList(OfficialBlock(True) for _ in range(DEPTH // 2))
        self.norm = nn.LayerNorm(D)
        self.decoder_pred = nn.Linear(D, PATCH**2 * CHANNELS)
        self.final_layer = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, x, t, y=None):
        n = len(x)
        rates = torch.tensor([10000 ** (-i / (D // 2)) for i in range(D // 2)])
        time = torch.cat([torch.cos(t[:, None] * rates), torch.sin(t[:, None] * rates)], dim=1)
        rows = [self.label_emb(y)] if y is not None else []
        rows.append(time)
        patches = self.patch_embed.proj(x)
        rows += [patches[:, :, i, j] for i in range(SIDE // PATCH) for j in range(SIDE // PATCH)]
        h = torch.stack(rows, dim=1) + self.pos_embed
        skips = []
        for block in self.in_blocks:
            h = block(h)
            skips.append(h)
        h = self.mid_block(h)
        for block in self.out_blocks:
            h = block(h, skips.pop())
        tokens = self.decoder_pred(self.norm(h))[:, -((SIDE // PATCH) ** 2) :]
        image = torch.zeros(n, CHANNELS, SIDE, SIDE)
        for index in range(tokens.shape[1]):
            i, j = divmod(index, SIDE // PATCH)
            patch = tokens[:, index].reshape(n, PATCH, PATCH, CHANNELS).permute(0, 3, 1, 2)
            image[:, :, i * PATCH : (i + 1) * PATCH, j * PATCH : (j + 1) * PATCH] = patch
        return self.final_layer(image)


@pytest.fixture
def inputs(generator):
    return torch.randn(3, CHANNELS, SIDE, SIDE, generator=generator), torch.tensor([999.0, 412.5, 0.5])


def save(network, path):
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.parametrize("rows", [10, 11])
def test_load_official__conditional_outputs_are_equal(tmp_path, inputs, rows, capsys):
    official, labels = Official(classes=rows), torch.tensor([0, 3, 9])
    ours = load_official(save(official, tmp_path / "a.pth"), num_classes=10, drop_labels=False)
    assert torch.allclose(ours(*inputs, labels), official(*inputs, labels), atol=1e-5)
    assert ("a null class was put after" in capsys.readouterr().err) == (rows == 10)


def test_load_official__guides_only_where_the_file_has_a_null_class(tmp_path):
    with_null, without = (
        load_official(save(Official(classes=rows), tmp_path / "a.pth"), num_classes=10, drop_labels=False)
        for rows in (11, 10)
    )
    with_null.check_guidance(0.5)
    without.check_guidance(0.0)
    with pytest.raises(InputError, match="its null class was made anew"):
        without.check_guidance(0.5)


def test_load_official__unconditional_outputs_are_equal(tmp_path, inputs):
    official = Official()
    ours = load_official(save(official, tmp_path / "a.pth"), num_classes=None)
    assert torch.allclose(ours(*inputs), official(*inputs), atol=1e-5)


def test_load_official__label_conditioning_is_added_in_front(tmp_path, generator, capsys):
    official = Official()
    ours = load_official(save(official, tmp_path / "a.pth"), num_classes=5, generator=generator)
    assert torch.equal(ours.pos_embed[:, 1:], official.pos_embed) and ours.label_emb.weight.shape == (6, D)
    assert torch.equal(ours.mid_block.attn.qkv.weight, official.mid_block.attn.qkv.weight)
    text = capsys.readouterr().err
    assert "new pos_embed: a label position" in text and "new label_emb.weight: 5 classes and the null class" in text


def test_load_official__foreign_labels_are_dropped(tmp_path, capsys):
    official = Official(classes=1000)
    ours = load_official(save(official, tmp_path / "a.pth"), num_classes=7)
    assert ours.config.num_classes == 7 and torch.equal(ours.pos_embed, official.pos_embed)
    assert "dropped label_emb.weight: the file's 1000 labels" in capsys.readouterr().err


def test_adapt__image_size_resizes_patch_positions(inputs):
    official = Official()
    ours, report = adapt(official.state_dict(), num_classes=None, image_size=16)
    grid = official.pos_embed[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, size=(8, 8), mode="bicubic").flatten(2).transpose(1, 2)
    assert torch.equal(ours.pos_embed[:, 1:], expected) and torch.equal(
        ours.pos_embed[:, :1], official.pos_embed[:, :1]
    )
    assert "resized from 4x4 to 8x8" in report.new["pos_embed"]
    assert ours(torch.zeros(1, 3, 16, 16), torch.tensor(1.0)).shape == (1, 3, 16, 16)


def test_infer_config__of_the_official_sizes():
    """cifar10_uvit_small from its shapes alone as U-ViT's code publishes it."""
    state = {"pos_embed": torch.empty(1, 257, 512), "patch_embed.proj.weight": torch.empty(512, 3, 2, 2)}
    state |= {f"in_blocks.{i}.norm1.weight": torch.empty(512) for i in range(6)}
    state |= {"mid_block.mlp.fc1.weight": torch.empty(2048, 512), "final_layer.weight": torch.empty(3, 3, 3, 3)}
    config = infer_config(state)
    assert (config["image_size"], config["depth"], config["num_heads"], config["mlp_ratio"]) == (32, 12, 8, 4)
    assert not config["qkv_bias"] and not config["mlp_time_embed"] and config["final_conv"]


def test_load_official__says_the_heads_it_guesses_and_takes_others(tmp_path, inputs, capsys):
    path, official = save(Official(), tmp_path / "a.pth"), Official()
    official.load_state_dict(torch.load(path, weights_only=True))
    assert torch.allclose(load_official(path, num_classes=None, num_heads=HEADS)(*inputs), official(*inputs), atol=1e-5)
    assert "guessed" not in capsys.readouterr().err
    guessed = load_official(path, num_classes=None)
    assert guessed.config.num_heads == D // 64 and "guessed num_heads 2 from the width 128" in capsys.readouterr().err
    other = load_official(path, num_classes=None, num_heads=8)
    assert other.config.num_heads == 8 and not torch.allclose(other(*inputs), official(*inputs), atol=1e-3)
    for heads in (0, -1, 3, 2.0, True, "2"):
        with pytest.raises(InputError, match="num_heads"):
            load_official(path, num_classes=None, num_heads=heads)


@pytest.mark.parametrize(("width", "heads"), [(128, 2), (96, 1), (200, 2), (65, 1), (1152, 18)])
def test_guessed_heads__divide_the_width(width, heads):
    assert guessed_heads(width) == heads


def prefixed(prefix):
    return lambda state: {f"{prefix}{name}": tensor for name, tensor in state.items()}


WRAPPED = {
    "compiled": prefixed("_orig_mod."),
    "parallel": prefixed("module."),
    "compiled, then parallel": prefixed("module._orig_mod."),
    "parallel, then compiled": prefixed("_orig_mod.module."),
    "compiled block by block": lambda state: {
        ".".join([*name.split(".")[:2], "_orig_mod", *name.split(".")[2:]]) if "_blocks." in name else name: tensor
        for name, tensor in state.items()
    },
    "in a state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "as a model beside an optimiser": lambda state: {"optimizer": {"state": {}}, "model": state},
    "its average rather than itself": lambda state: {"model": {k: v + 1 for k, v in state.items()}, "ema": state},
    "an average without a network": lambda state: {"ema": {"decay": 0.9, "shadow_params": []}, "model": state},
    "wrapped and nested": lambda state: {"state": 1, "model": {"state_dict": prefixed("module._orig_mod.")(state)}},
    "a part of a module": lambda state: {"state_dict": prefixed("model._orig_mod.")(state), "epoch": 3},
    "its average beside it": lambda state: (
        prefixed("online_model.")({k: v + 1 for k, v in state.items()}) | prefixed("ema_model.")(state) | {"step": 1}
    ),
    "of the authors' training": lambda state: {"nnet": {k: v + 1 for k, v in state.items()}, "nnet_ema": state},
    "averaged by torch": lambda state: prefixed("module.")(state) | {"n_averaged": torch.tensor(3)},
    "in double precision": lambda state: {name: tensor.double() for name, tensor in state.items()},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=list(WRAPPED))
def test_load_official__of_wrapped_networks(tmp_path, inputs, wrap):
    official = Official(classes=11)
    torch.save(wrap(dict(official.state_dict())), tmp_path / "a.pth")
    ours, labels = load_official(tmp_path / "a.pth", num_classes=10, drop_labels=False), torch.tensor([0, 3, 9])
    assert torch.allclose(ours(*inputs, labels), official(*inputs, labels), atol=1e-5)


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("norm.weight", torch.full((D,), torch.nan), "norm.weight has values that are not finite"),
        ("norm.weight", "x", "its norm.weight is str, expected a dense tensor"),
        ("norm.weight", torch.ones(D, dtype=torch.int64), "its norm.weight is torch.int64"),
        ("norm.weight", torch.ones(D).to_sparse(), "its norm.weight is torch.float32, expected a dense tensor"),
        ("norm.weight", torch.ones(D, device="meta"), "its norm.weight is torch.float32, expected a dense tensor"),
        ("norm.weight", torch.ones(D + 1), "is no U-ViT of this kind"),
        ("pos_embed", torch.ones(3), "holds no U-ViT|pos_embed is"),
        ("pos_embed", torch.ones(1, 0, D), "holds no U-ViT"),
        ("patch_embed.proj.weight", torch.ones(D), "holds no U-ViT"),
        ("patch_embed.proj.weight", torch.ones(0, 3, 2, 2), "holds no U-ViT|pos_embed is|not finite|must be from"),
        ("label_emb.weight", torch.ones(D), "label_emb.weight is"),
        ("label_emb.weight", torch.ones(11, 3), "label_emb.weight is"),
    ],
)
def test_load_official__refuses_a_tensor_that_is_wrong(tmp_path, name, value, message):
    torch.save(dict(Official(classes=11).state_dict()) | {name: value}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=message):
        load_official(tmp_path / "a.pth", num_classes=10)


def test_load_official__refuses_what_is_no_uvit(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="holds no U-ViT"):
        load_official(tmp_path / "a.pth", num_classes=10)
    path = save(Official(), tmp_path / "b.pth")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="truncated or no tensor file"):
        load_official(path, num_classes=10)
    with pytest.raises(InputError, match="embeds 12 labels, expected 10 or 11"):
        load_official(save(Official(classes=12), tmp_path / "c.pth"), num_classes=10, drop_labels=False)
    state = Official().state_dict()
    state.pop("norm.weight")
    torch.save(state, tmp_path / "d.pth")
    with pytest.raises(InputError, match="missing \\['norm.weight'\\]"):
        load_official(tmp_path / "d.pth", num_classes=10)


def layout(width, depth, patch, side, rows=None):
    """The entries of an official file and their shapes, from the description of the authors' network."""
    tokens = (side // patch) ** 2 + (1 if rows is None else 2)
    shapes = {
        "pos_embed": (1, tokens, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "decoder_pred.weight": (patch * patch * 3, width),
        "decoder_pred.bias": (patch * patch * 3,),
        "final_layer.weight": (3, 3, 3, 3),
        "final_layer.bias": (3,),
    }
    shapes |= {} if rows is None else {"label_emb.weight": (rows, width)}
    half = range(depth // 2)
    for block in ("mid_block", *(f"{part}_blocks.{i}" for part in ("in", "out") for i in half)):
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
        shapes[f"{block}.attn.qkv.weight"] = (3 * width, width)
        linear = {"attn.proj": (width, width), "mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        linear |= {"skip_linear": (width, 2 * width)} if block.startswith("out") else {}
        for name, shape in linear.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
    return shapes


PUBLISHED = {
    "cifar10_uvit_small.pth": ("cifar10-small", None, 44_255_328, layout(512, 12, 2, 32)),
    "imagenet64_uvit_mid.pth": ("imagenet64-mid", 999, 130_940_292, layout(768, 16, 4, 64, rows=1000)),
}
"""The authors' files: the preset and the classes that have their layout, the parameters, and the layout."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_official_files__have_the_layout_of_our_presets_key_by_key(name):
    preset, classes, parameters, shapes = PUBLISHED[name]
    with torch.device("meta"):
        ours = UViT.from_preset(preset, classes)
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
    assert {key: tuple(tensor.shape) for key, tensor in ours.state_dict().items()} == shapes
    assert sum(math.prod(shape) for shape in shapes.values()) == parameters
    found = infer_config(state)
    assert all(ours.config[key] == value for key, value in found.items() if key != "num_classes")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "classes"), [("cifar10_uvit_small.pth", 100), ("imagenet64_uvit_mid.pth", 200)])
def test_official_files__begin_the_challenge_s_models(tmp_path, generator, capsys, name, classes):
    """Random weights in the files' exact layout: all that can be kept is, and the network draws what it should."""
    _, _, _, shapes = PUBLISHED[name]
    weights = {key: 0.02 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    torch.save(weights, tmp_path / name)
    ours, own = load_official(tmp_path / name, num_classes=classes, generator=generator), dict(weights)
    labels, positions = own.pop("label_emb.weight", None), own.pop("pos_embed")
    state = ours.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in own.items())
    assert torch.equal(state["pos_embed"][:, -positions.shape[1] :], positions)
    assert state.keys() - own.keys() == {"pos_embed", "label_emb.weight"} and ours.config.num_classes == classes
    assert ("dropped label_emb.weight: the file's 1000 labels" in capsys.readouterr().err) == (labels is not None)
    side = ours.config.image_size
    with torch.no_grad():
        noise = ours(torch.randn(1, 3, side, side, generator=generator), torch.tensor(500.0), torch.tensor([7]))
    assert noise.shape == (1, 3, side, side) and noise.isfinite().all()

    # A step of training from the same file, on images of that size.
    images = torch.randint(0, 256, (classes, side, side, 3), generator=generator, dtype=torch.uint8).numpy()
    for split in ("train", "test"):
        write_image_folder(tmp_path / "real" / split, images, range(classes))
    config = TrainConfig(
        data=f"folder:{tmp_path / 'real'}", init_from=str(tmp_path / name), iterations=2, batch_size=2, warmup=0,
        optimizer="adamw", device="cpu", compile=False,
    )  # fmt: skip
    del ours, state
    trainer = Trainer.start(config, config.training_data())
    assert trainer.step(0).isfinite()
    moved = {key: not torch.equal(own[key], tensor) for key, tensor in trainer.model.state_dict().items() if key in own}
    assert len(moved) == len(own) and all(moved[key] for key in own if key.endswith("weight"))
