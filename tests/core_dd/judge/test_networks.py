"""The literature's networks: published parameter counts, second implementations, initialisation, bad input."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from core_dd.errors import InputError
from core_dd.judge.networks import NETWORKS, build_network, reset

CIFAR10, MNIST, TINY = (3, 32, 32), (1, 28, 28), (3, 64, 64)
IMAGENET = (3, 224, 224)
OTHERS = [name for name in NETWORKS if not name.startswith("convnet")]

COUNTS = [
    ("mlp", 411146, 118282, 1615304, 422756),
    ("lenet", 62006, 61706, None, 69656),
    ("alexnet", 1872202, 1865802, 2456072, 2148772),
    ("alexnet_bn", 1874122, 1867722, None, 2150692),
    ("vgg11", 9231114, 9229962, 9328584, 9277284),
    ("vgg11_bn", 9231114, 9229962, 9328584, 9277284),
    ("resnet18", 11173962, 11172810, 11271432, 11220132),
    ("resnet18_bn", 11173962, 11172810, 11271432, 11220132),
    ("resnet18_ap", 11250762, 11213770, 12807432, 11988132),
    ("resnet18_ap_bn", 11250762, 11213770, 12807432, 11988132),
    ("resnet10", 1228970, 4902090, 5000712, 1252100),
    ("resnetap10", 1228970, 4902090, 5000712, 1252100),
    ("resnet18_w32_bn", 2797610, None, None, 2820740),  # IDC's ResNet18-BN on CIFAR
    ("densenet121", 1000618, None, None, 1035268),
    ("densenet121_w32", 6956298, None, None, 7048548),
]
"""Of the authors' networks, by instantiating them: CIFAR-10, MNIST, Tiny-ImageNet with 200 classes, CIFAR-100."""

LARGE = [
    ("resnetap10", IMAGENET, 10, 4910922),
    ("resnetap10", IMAGENET, 100, 4957092),
    ("resnet18_bn", IMAGENET, 10, 11181642),
    ("resnet18_bn", IMAGENET, 100, 11227812),
]


def on_meta(name: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A network without weights."""
    with torch.device("meta"):
        return NETWORKS[name](shape, classes)


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(("name", "cifar10", "mnist", "tiny", "cifar100"), COUNTS, ids=[row[0] for row in COUNTS])
def test_build_network__has_the_published_parameter_count(name, cifar10, mnist, tiny, cifar100):
    for shape, classes, published in ((CIFAR10, 10, cifar10), (MNIST, 10, mnist), (TINY, 200, tiny)):
        if published is not None:
            assert count(build_network(name, shape, classes)) == published
    assert count(build_network(name, CIFAR10, 100)) == cifar100


@pytest.mark.parametrize(("name", "shape", "classes", "published"), LARGE, ids=str)
def test_build_network__has_the_published_parameter_count_of_large_images(name, shape, classes, published):
    assert count(build_network(name, shape, classes)) == published


def test_vit__has_the_parameters_of_its_definition():
    """DataDAM's: patches of 4, width 512, 6 encoders of 8 heads of 64, hidden width 512, no bias in the projections."""
    patches, tokens = 3 * 16 * 512 + 512, 65 * 512 + 512
    attention, perceptron, norms = 512 * 3 * 512 + 512 * 512 + 512, 2 * (512 * 512 + 512), 2 * 2 * 512
    head = 2 * 512 + 512 * 10 + 10
    total = patches + tokens + 6 * (attention + perceptron + norms) + head
    assert count(build_network("vit_tiny", CIFAR10, 10)) == total == 9523722


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("shape", [MNIST, CIFAR10, TINY, (3, 128, 128)], ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_networks__take_the_sizes_of_the_literature(name, shape):
    net = on_meta(name, shape, 7)
    x = torch.zeros(2, *shape, device="meta")
    features = net.features(x)
    assert features.shape == (2, net.classifier.in_features) and net.classifier(features).shape == (2, 7)


FEATURES = {
    "alexnet": 192 * 16, "vgg11": 512, "resnet10": 256, "resnet18": 512, "resnet18_ap": 512 * 16, "resnetap10": 256,
    "densenet121": 384, "vit_tiny": 512, "lenet": 84, "mlp": 128,
}  # fmt: skip
SHOWN = {
    "alexnet": [(128, 32), (192, 16), (256, 8), (192, 8), (192, 8)],
    "vgg11": [(64, 32), (128, 16), (256, 8), (256, 8), (512, 4), (512, 4), (512, 2), (512, 2)],
    "resnet10": [(32, 32), (64, 16), (128, 8), (256, 4)],
    "resnet18": [(64, 32), (128, 16), (256, 8), (512, 4)],
    "resnet18_ap": [(64, 32), (128, 16), (256, 8), (512, 4)],
    "resnetap10": [(32, 32), (64, 16), (128, 8), (256, 4)],
    "densenet121": [(96, 32), (192, 16), (384, 8), (384, 4)],
    "vit_tiny": [(512, 8)] * 6,
    "lenet": [(6, 28), (16, 10)],
}
"""Channels and side of what each layer shows of 32x32 pixels."""


@pytest.mark.parametrize("name", OTHERS)
def test_features__are_what_the_classifier_sees_and_layers_lead_to_them(name, generator):
    net = build_network(name, CIFAR10, 10, generator).eval()
    x = torch.randn(2, *CIFAR10, generator=generator)
    with torch.no_grad():
        features = net.features(x)
        assert features.shape == (2, FEATURES[name])
        torch.testing.assert_close(net(x), net.classifier(features))
        if name == "mlp":
            assert not hasattr(net, "activations")
            return
        shown, again = net.activations(x)
    assert [tuple(own.shape) for own in shown] == [(2, channels, side, side) for channels, side in SHOWN[name]]
    torch.testing.assert_close(again, features)


class State:
    """A network's tensors one after the other, and layers that take theirs from the front."""

    def __init__(self, net: nn.Module) -> None:
        self.tensors: Iterator[Tensor] = iter(
            [tensor for name, tensor in net.state_dict().items() if not name.endswith("num_batches_tracked")]
        )

    def conv(self, x, stride=1, padding=1, bias=True):
        kernel = next(self.tensors)
        return F.conv2d(x, kernel, next(self.tensors) if bias else None, stride, padding)

    def linear(self, x, bias=True):
        out = x @ next(self.tensors).T
        return out + next(self.tensors) if bias else out

    def instance(self, x):
        gain, shift = next(self.tensors), next(self.tensors)
        centred = x - x.mean((2, 3), keepdim=True)
        out = centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
        return out * gain[:, None, None] + shift[:, None, None]

    def batch(self, x):
        gain, shift, mean, variance = (next(self.tensors)[:, None, None] for _ in range(4))
        return (x - mean) / (variance + 1e-5).sqrt() * gain + shift

    def layer(self, x):
        gain, shift = next(self.tensors), next(self.tensors)
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain + shift


def halves(x):
    """2x2 means."""
    return x.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))


def peaks(x):
    """2x2 maxima."""
    return x.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))


def plain_alexnet(state, x):
    x = peaks(state.conv(x, padding=4 if x.shape[1] == 1 else 2).relu())
    x = peaks(state.conv(x, padding=2).relu())
    for _ in range(3):
        x = state.conv(x).relu()
    return state.linear(peaks(x).flatten(1))


def plain_vgg11(state, x):
    for pooled in (True, True, False, True, False, True, False, True):
        x = state.instance(state.conv(x, padding=3 if x.shape[1] == 1 else 1)).relu()
        x = peaks(x) if pooled else x
    return state.linear(x.flatten(1))


def plain_lenet(state, x):
    x = peaks(state.conv(x, padding=2 if x.shape[1] == 1 else 0).relu())
    x = peaks(state.conv(x, padding=0).relu())
    return state.linear(state.linear(state.linear(x.flatten(1)).relu()).relu())


def plain_mlp(state, x):
    return state.linear(state.linear(state.linear(x.flatten(1)).relu()).relu())


def plain_pooled_resnet(state, x, depth, flat):
    """Average pooling after the first ReLU of a halving block, and between its shortcut's convolution and norm."""
    x = state.instance(state.conv(x, bias=False)).relu()
    for stage in range(4):
        for block in range(depth):
            halving = stage > 0 and block == 0
            out = state.instance(state.conv(x, bias=False)).relu()
            out = state.instance(state.conv(halves(out) if halving else out, bias=False))
            x = out + (state.instance(halves(state.conv(x, padding=0, bias=False))) if halving else x)
            x = x.relu()
    return state.linear(x.flatten(1) if flat else x.mean((2, 3)))


def plain_densenet(state, x):
    x = state.conv(x, bias=False)
    for depth in (6, 12, 24, 16):
        for _ in range(depth):
            norm = state.batch(x).relu()
            narrow = state.conv(norm, padding=0, bias=False)
            x = torch.cat([state.conv(state.batch(narrow).relu(), bias=False), x], 1)
        x = state.batch(x).relu()
        if depth != 16:
            x = halves(state.conv(x, padding=0, bias=False))
    return state.linear(x.mean((2, 3)))


def plain_vit(state, x):
    """Tokens of one image at a time: patches row by row, in each pixel by pixel, in each channel by channel."""
    positions, first, weight, bias = (next(state.tensors) for _ in range(4))
    rows = []
    for image in x:
        cut = [
            image[:, i : i + 4, j : j + 4].permute(1, 2, 0).flatten()
            for i in range(0, image.shape[1], 4)
            for j in range(0, image.shape[2], 4)
        ]
        rows.append(torch.cat([first[0], torch.stack(cut) @ weight.T + bias]) + positions[0])
    x = torch.stack(rows)
    for _ in range(6):
        q, k, v = state.linear(state.layer(x), bias=False).split(512, 2)
        heads = []
        for h in range(8):
            own = slice(64 * h, 64 * h + 64)
            scores = q[..., own] @ k[..., own].transpose(1, 2) / 8
            heads.append(scores.softmax(2) @ v[..., own])
        x = x + state.linear(torch.cat(heads, 2))
        hidden = state.linear(state.layer(x))
        x = x + state.linear(hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))))
    return state.linear(state.layer(x[:, 0]))


PLAIN = {
    "alexnet": plain_alexnet,
    "vgg11": plain_vgg11,
    "lenet": plain_lenet,
    "mlp": plain_mlp,
    "resnet18_ap": lambda state, x: plain_pooled_resnet(state, x, 2, flat=True),
    "resnetap10": lambda state, x: plain_pooled_resnet(state, x, 1, flat=False),
    "densenet121": plain_densenet,
    "vit_tiny": plain_vit,
}


def stirred(net: nn.Module, generator: torch.Generator) -> nn.Module:
    """The network with norms and statistics that are not the identity."""
    for module in net.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm | nn.BatchNorm2d):
            for tensor in module.state_dict().values():
                if tensor.is_floating_point():
                    tensor.uniform_(0.5, 1.5, generator=generator)
    return net


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("shape", [MNIST, CIFAR10], ids=["mnist", "cifar10"])
def test_forward__equals_the_published_layers_written_out(name, shape, generator):
    net = stirred(build_network(name, shape, 10, generator), generator).eval()
    x = torch.randn(2, *shape, generator=generator)
    state = State(net)
    with torch.no_grad():
        torch.testing.assert_close(net(x), PLAIN[name](state, x), rtol=1e-3, atol=1e-4)
    assert next(state.tensors, None) is None, "every tensor had its part"


@pytest.mark.parametrize(
    ("name", "depth", "size", "width"),
    [("resnet18_bn", 2, 32, 64), ("resnet10_w64", 1, 96, 64), ("resnet10", 1, 160, 64)],
)
def test_resnet__equals_torchvisions_with_the_stem_of_its_size(name, depth, size, width, generator):
    """Up to 64 pixels without the max pooling, up to 128 with a 3x3 convolution, above that torchvision's own."""
    net = stirred(build_network(name, (3, size, size), 10, generator), generator).eval()
    theirs = torchvision.models.resnet.ResNet(torchvision.models.resnet.BasicBlock, [depth] * 4, num_classes=10).eval()
    if size <= 128:
        theirs.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
    if size <= 64:
        theirs.maxpool = nn.Identity()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), net.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, size, size, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(net(x), theirs(x), rtol=1e-3, atol=1e-4)


def test_forward__of_larger_images_pools_the_map_to_the_published_one(generator):
    """Twice the published side: the last map of AlexNet, 8x8, is averaged to 4x4, that of VGG-11 over its 2x2."""
    x = torch.randn(2, *TINY, generator=generator)
    for name, side in (("alexnet", 4), ("vgg11", 1)):
        net = build_network(name, TINY, 10, generator).eval()
        with torch.no_grad():
            mapped = halves(net.blocks(x))
            assert mapped.shape[2:] == (side, side)
            torch.testing.assert_close(net.features(x), mapped.flatten(1))


@pytest.mark.parametrize("name", OTHERS)
def test_build_network__same_seed_same_weights_and_reset_repeats_it(name):
    shape = CIFAR10 if name == "vgg11" else (3, 16, 16)
    seeded = [build_network(name, shape, 3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    first, again, other = (net.state_dict() for net in seeded)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    seeded[2].train()(torch.randn(4, *shape))
    assert reset(seeded[2], torch.Generator().manual_seed(1)) is seeded[2]
    assert all(torch.equal(first[key], tensor) for key, tensor in seeded[2].state_dict().items())


def test_reset__draws_idcs_resnets_by_he_and_dcs_by_torchs_default(generator):
    for name, std in (("resnet10_w64", math.sqrt(2 / (9 * 64))), ("resnet18", 1 / math.sqrt(3 * 9 * 64))):
        kernel = build_network(name, CIFAR10, 10, generator).blocks[0][3].conv1.weight
        assert kernel.std().item() == pytest.approx(std, rel=0.02)


def test_reset__draws_tokens_from_the_standard_normal(generator):
    positions = build_network("vit_tiny", CIFAR10, 10, generator).tokens.positions
    assert positions.std().item() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize(("suffix", "kind"), [("bn", nn.BatchNorm2d), ("in", nn.GroupNorm), ("gn", nn.GroupNorm)])
@pytest.mark.parametrize("name", ["alexnet", "vgg11", "resnet10", "resnet18_ap", "densenet121"])
def test_suffix__chooses_the_norm(name, suffix, kind):
    kinds = {type(module) for module in build_network(f"{name}_{suffix}", CIFAR10, 10).modules()}
    assert kinds & {nn.BatchNorm2d, nn.GroupNorm} == {kind}


def test_suffix__without_norm_gives_convolutions_a_bias():
    net = build_network("resnet10_nonorm_w8", CIFAR10, 10)
    assert all(module.bias is not None for module in net.modules() if isinstance(module, nn.Conv2d))
    assert not any(isinstance(module, nn.BatchNorm2d | nn.GroupNorm) for module in net.modules())


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("resnt18", CIFAR10, "did you mean 'resnet18'"),
        ("vit", CIFAR10, "did you mean 'vit_tiny'"),
        ("resnet18_app", CIFAR10, "unknown network variant 'app'"),
        ("lenet_bn", CIFAR10, "lenet has no norm to choose: leave out '_bn'"),
        ("mlp_maxpool", CIFAR10, "mlp has no pool to choose"),
        ("vgg11_w64", CIFAR10, "vgg11 has no width to choose"),
        ("resnet18_ln", CIFAR10, "unknown norm 'layer'"),
        ("resnet18_w6_gn", CIFAR10, "divisible by 4"),
        ("resnet18_w0", CIFAR10, "width must be >= 1"),
        ("mlp_w0", CIFAR10, "width must be >= 1"),
        ("densenet121_w0", CIFAR10, "width must be >= 1"),
        ("vit_tiny_w30", CIFAR10, "multiple of 8 heads"),
        ("vit_tiny", (3, 30, 30), "patches of 4x4, which 30x30 is no multiple of"),
        ("vgg11", (1, 8, 8), "images of 8x8 are too small for VGG11"),
        ("vgg11", (3, 28, 28), "too small for VGG11"),
        ("lenet", (1, 8, 8), "too small for LeNet"),
        ("densenet121", (3, 4, 4), "too small for DenseNet"),
        ("resnet18", (3, 8, 8), "too small for ResNet: its instance norm would see single positions.*_bn"),
        ("densenet121_in", (3, 8, 8), "its instance norm would see single positions"),
    ],
)
def test_build_network__refuses(name, shape, message):
    with pytest.raises(InputError, match=message):
        build_network(name, shape, 10)


@pytest.mark.parametrize("name", OTHERS)
def test_forward__refuses_images_of_another_shape(name):
    with pytest.raises(InputError, match=r"shape \(3, 64, 64\), got \(3, 32, 32\)"):
        on_meta(name, TINY, 10)(torch.zeros(2, *CIFAR10, device="meta"))


def test_manual__states_the_parameters_of_every_network():
    lines = (Path(__file__).parents[3] / "docs" / "judge.md").read_text().splitlines()
    rows = [line.split("|")[1:3] for line in lines if re.fullmatch(r"\| `\w+`.*\| [\d,]+ \|.*", line)]
    stated = {name.split("`")[1]: int(number.replace(",", "")) for name, number in rows}
    assert stated.keys() >= {*OTHERS, "convnet3"}
    for name, number in stated.items():
        base, _, width = name.partition("_w")
        with torch.device("meta"):
            net = NETWORKS[base](CIFAR10, 10, **({"width": int(width)} if width else {}))
        assert count(net) == number, name
