import math

import pytest
import torch
from torch import nn

from core_dd.errors import InputError
from core_dd.speed import forward_flops
from gen_dd.uvit import PRESETS, Attention, UViT, attention, image_flops, sinusoid, unpatchify

SMALL = {"image_size": 8, "patch_size": 2, "in_channels": 3, "hidden_size": 32, "depth": 4, "num_heads": 2}


def make(seed=0, **options):
    torch.manual_seed(seed)
    return UViT(**SMALL | {"num_classes": 5} | options).eval()


def inputs(batch=4, generator=None):
    generator = generator or torch.Generator().manual_seed(1)
    x = torch.randn(batch, 3, 8, 8, generator=generator)
    return x, 999 * torch.rand(batch, generator=generator), torch.randint(6, (batch,), generator=generator)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def formula(sizes, rows):
    """Parameters of the official network; `rows` of the label embedding, 0 for an unconditional one."""
    d, p, c, depth = sizes["hidden_size"], sizes["patch_size"], sizes["in_channels"], sizes["depth"]
    tokens = (sizes["image_size"] // p) ** 2 + (2 if rows else 1)
    blocks = (depth + 1) * (12 * d**2 + 10 * d) + depth // 2 * (2 * d**2 + d)
    ends = (p**2 * c * d + d) + 2 * d + (p**2 * c * d + p**2 * c) + (9 * c**2 + c)
    return blocks + tokens * d + ends + rows * d


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("classes", [None, 10])
def test_parameters__equal_the_formula(preset, classes):
    with torch.device("meta"):
        model = UViT.from_preset(preset, classes)
    assert count(model) == formula(PRESETS[preset], 0 if classes is None else classes + 1)


@pytest.mark.parametrize(
    ("preset", "classes", "parameters", "keys"),
    [
        ("cifar10-small", None, 44_255_328, 164),
        ("cifar10-small", 100, 44_307_552, 165),
        ("imagenet64-mid", 999, 130_940_292, 213),
        ("imagenet64-mid", 200, 130_326_660, 213),
    ],
)
def test_parameters__equal_the_published_numbers(preset, classes, parameters, keys):
    """999 classes and the null class fill the official 1000 rows."""
    with torch.device("meta"):
        model = UViT.from_preset(preset, classes)
    assert count(model) == parameters and len(model.state_dict()) == keys


def test_tiny__is_the_demo_network():
    assert 0.55e6 < count(UViT.from_preset("tiny", 10)) < 0.65e6


def test_from_preset__fits_other_images():
    model = UViT.from_preset("tiny", 3, image_size=12, in_channels=2)
    assert model(torch.zeros(1, 2, 12, 12), torch.zeros(1), torch.zeros(1, dtype=torch.long)).shape == (1, 2, 12, 12)


def test_layer_norms__have_the_official_epsilon():
    assert {module.eps for module in make().modules() if isinstance(module, nn.LayerNorm)} == {1e-5}


def test_init__is_the_official_one():
    model = make(hidden_size=128)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert module.bias is None or not module.bias.any()
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.label_emb.weight.std().item() == pytest.approx(1.0, rel=0.1)
    bound = 1 / math.sqrt(3 * 2 * 2)  # torch's own for convolutions
    assert 0.9 * bound < model.patch_embed.proj.weight.abs().max() <= bound


def test_sinusoid__cosines_first_then_sines():
    embedded = sinusoid(torch.tensor([0.0, 499.5]), 6)
    rates = [10000 ** (-i / 3) for i in range(3)]
    expected = [[f(t * rate) for f in (math.cos, math.sin) for rate in rates] for t in (0.0, 499.5)]
    assert torch.allclose(embedded, torch.tensor(expected), atol=1e-4)
    assert sinusoid(torch.zeros(1), 7).shape == (1, 7)


@pytest.mark.parametrize("width", [96, 512, 768, 1024, 1152])
def test_sinusoid__multiplies_in_the_official_order(width):
    """Bit for bit, as the official code writes it: exp(-log(10000) * i / half), times the time."""
    half, time = width // 2, torch.tensor([999.0, 412.34567, 0.5, 1e-3])
    frequencies = torch.exp(-math.log(10000) * torch.arange(start=0, end=half, dtype=torch.float32) / half)
    official = time[:, None].float() * frequencies[None]
    assert torch.equal(sinusoid(time, width), torch.cat([torch.cos(official), torch.sin(official)], dim=-1))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"depth": 10**7}, "depth must be from 0 to 1000, got 10000000"),
        ({"depth": -2}, "depth must be from 0"),
        ({"num_heads": 0}, "num_heads must be from 1"),
        ({"num_heads": -4}, "num_heads must be from 1"),
        ({"hidden_size": 0}, "hidden_size must be from 2"),
        ({"hidden_size": 10**9}, "hidden_size must be from 2"),
        ({"patch_size": 0}, "patch_size must be from 1"),
        ({"image_size": 10**6}, "image_size must be from 1"),
        ({"in_channels": -1}, "in_channels must be from 1"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio must be > 0"),
        ({"mlp_ratio": 1e9}, "mlp_ratio must be > 0"),
    ],
)
def test_uvit__refuses_sizes_before_it_allocates(sizes, message):
    with pytest.raises(InputError, match=message):
        UViT(**{**PRESETS["tiny"], "num_classes": 10, **sizes})


def test_unpatchify__channel_runs_fastest():
    patch, channels, side = 2, 3, 3
    image = torch.arange(channels * 36.0).view(1, channels, 6, 6)
    tokens = [
        [image[0, c, row * 2 + y, col * 2 + x] for y in range(patch) for x in range(patch) for c in range(channels)]
        for row in range(side)
        for col in range(side)
    ]
    assert torch.equal(unpatchify(torch.tensor([tokens]), patch), image)


def test_attention__equals_a_loop_over_heads(generator):
    layer = Attention(24, 3, qkv_bias=True)
    x = torch.randn(2, 7, 24, generator=generator)
    q, k, v = layer.qkv(x).split(24, dim=-1)
    parts = []
    for head in range(3):
        own = slice(8 * head, 8 * head + 8)
        weights = torch.softmax(q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(8), dim=-1)
        parts.append(weights @ v[..., own])
    assert torch.allclose(layer(x), layer.proj(torch.cat(parts, dim=-1)), atol=1e-6)


def test_attention__in_bf16_agrees_with_fp32(generator):
    """The written-out form rounds the weights to 8 bits: 2^-9 relative, averaged over the tokens."""
    q, k, v = torch.randn(3, 2, 4, 18, 24, generator=generator).bfloat16()
    exact = attention(q.float(), k.float(), v.float())
    assert (attention(q, k, v).float() - exact).abs().max() < 0.02
    assert (attention(q, k, v).float() - exact).abs().mean() < 0.003


def test_forward__in_bf16_agrees_with_fp32():
    model, (x, timestep, labels) = make(), inputs(64)
    exact = model(x, timestep, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(x, timestep, labels)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().mean() < 0.02 * exact.std()


def test_forward__each_image_by_itself():
    model, (x, timestep, labels) = make(), inputs()
    together = model(x, timestep, labels)
    alone = torch.cat([model(x[i : i + 1], timestep[i : i + 1], labels[i : i + 1]) for i in range(len(x))])
    assert torch.allclose(together, alone, atol=1e-5)


def test_forward__a_scalar_time_serves_the_whole_batch():
    model, (x, _, labels) = make(), inputs()
    scalar, repeated = torch.tensor(321.5), torch.full((len(x),), 321.5)
    assert torch.equal(model(x, scalar, labels), model(x, repeated, labels))


def test_forward__depends_on_time_and_label():
    model, (x, timestep, labels) = make(), inputs()
    plain = model(x, timestep, labels)
    assert not torch.allclose(plain, model(x, timestep + 10, labels), atol=1e-3)
    assert not torch.allclose(plain, model(x, timestep, (labels + 1) % 6), atol=1e-3)


def test_forward__unconditional():
    model, (x, timestep, labels) = make(num_classes=None), inputs()
    assert model.null_class is None and model(x, timestep).shape == x.shape
    with pytest.raises(ValueError, match="num_classes is None"):
        model(x, timestep, labels)
    with pytest.raises(ValueError, match="num_classes is 5"):
        make()(x, timestep)


@pytest.mark.parametrize("options", [{"mlp_time_embed": True}, {"qkv_bias": True}, {"final_conv": False}])
def test_options__change_the_network_and_survive_saving(options, tmp_path):
    model, (x, timestep, labels) = make(**options), inputs()
    assert set(model.state_dict()) != set(make().state_dict())
    model.save_pretrained(tmp_path)
    loaded = UViT.from_pretrained(tmp_path)
    assert not loaded.training
    assert all(loaded.config[name] == value for name, value in (SMALL | options).items())
    assert torch.equal(loaded(x, timestep, labels), model(x, timestep, labels))


def test_gradient_checkpointing__changes_no_gradient():
    gradients = []
    for enabled in (False, True):
        model, (x, timestep, labels) = make().train(), inputs()
        if enabled:
            model.enable_gradient_checkpointing()
        model(x, timestep, labels).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 3}, "image_size 8 is not a multiple of patch_size 3"),
        ({"num_heads": 5}, "hidden_size 32 is not a multiple of num_heads 5"),
        ({"depth": 3}, "depth must be even"),
        ({"num_classes": 0}, "num_classes must be from 1"),
    ],
)
def test_sizes__that_do_not_fit(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


def test_from_preset__unknown_name():
    with pytest.raises(InputError, match="did you mean 'tiny'"):
        UViT.from_preset("tinny", 10)


@pytest.mark.parametrize(
    "options", [{}, {"mlp_time_embed": True, "final_conv": False, "qkv_bias": True, "mlp_ratio": 2}]
)
@pytest.mark.parametrize("classes", [5, None])
def test_image_flops__are_those_that_torch_counts(options, classes):
    model, (x, t, labels) = make(num_classes=classes, **options), inputs()
    assert image_flops(model) == pytest.approx(forward_flops(model, x, t, *([] if classes is None else [labels])))
