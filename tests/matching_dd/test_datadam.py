"""DataDAM against a second, plain implementation: one image, one layer, one class at a time."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from plain import plain_layers
from torch import Tensor

from core_dd.config import load_config
from core_dd.errors import InputError
from matching_dd.methods.datadam import DataDAM, DataDAMConfig, chosen_layers

PLAIN = {"bf16": False, "compile": False}


def plain_map(output: Tensor, p: float, norm: str) -> Tensor:
    """Attention of one image's layer (channels, H, W), flattened (Sajedi et al. 2023)."""
    attention = sum(channel.abs() ** p for channel in output).flatten()
    if norm == "none":
        return attention
    length = (attention**2).sum().sqrt() if norm == "l2" else attention.abs().sum()
    return attention / length


def plain_loss(net: torch.nn.Module, real: Tensor, syn: Tensor, layers: list[int], config: DataDAMConfig) -> Tensor:
    """scale (sum over layers, classes and positions + lambda times the distance of mean features)."""
    total = torch.zeros(())
    for own in zip(real, syn, strict=True):
        seen = [[plain_layers(net, image) for image in images] for images in own]
        for layer in layers:
            maps = [[plain_map(outputs[layer], config.p, config.norm) for outputs, _ in images] for images in seen]
            squares = [sum((x**2).sum() for x in images) / len(images) for images in maps]
            length = ((squares[0] + squares[1]) / 2).sqrt().detach()
            r, s = (sum(images) / len(images) / length for images in maps)
            if config.attention == "mse":
                total = total + ((r - s) ** 2).sum()
            elif config.attention == "mae":
                total = total + (r - s).abs().sum() / len(r) ** 0.5
            else:
                total = total + 1 - (r @ s) / (r.norm() * s.norm())
        r, s = (sum(features for _, features in images) / len(images) for images in seen)
        total = total + config.mmd_weight * ((r - s) ** 2).sum()
    return config.scale * total


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({}, [0]),
        ({"p": 1.0, "layers": "1_2"}, [0, 1]),
        ({"p": 2.0, "norm": "l1", "mmd_weight": 0.5, "scale": 2.0}, [0]),
        ({"norm": "none", "p": 1.0, "layers": "2"}, [1]),
        ({"attention": "mae"}, [0]),
        ({"attention": "mae", "norm": "none"}, [0]),
        ({"attention": "cosine"}, [0]),
    ],
    ids=str,
)
def test_loss__equals_plain_loop_in_value_and_gradient(digits, generator, options, layers):
    config = DataDAMConfig(network="convnet2_w8", **options, **PLAIN)
    datadam = DataDAM(config, digits)
    net = datadam.draw_network(0)
    real = torch.randn(3, 4, *digits.shape, generator=generator)
    syn = torch.randn(3, 2, *digits.shape, generator=generator, requires_grad=True)
    value, plain = datadam.loss(net, real, syn), plain_loss(net, real, syn, layers, config)
    torch.testing.assert_close(value, plain, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(loss, syn)[0] for loss in (value, plain)]
    assert gradients[1].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4 * float(gradients[1].abs().max()))


@pytest.mark.parametrize("attention", ["mse", "mae", "cosine"])
def test_loss__zero_when_synthetic_is_real(digits, generator, attention):
    datadam = DataDAM(DataDAMConfig(network="convnet2_w8", attention=attention, **PLAIN), digits)
    real = torch.randn(3, 4, *digits.shape, generator=generator)
    assert abs(datadam.loss(datadam.draw_network(0), real, real.clone())) < 1e-3


def test_loss__of_batch_norm_takes_all_classes_together(digits, generator):
    """The authors' ConvNet is one of batch norm, and each set goes through it in one batch."""
    datadam = DataDAM(DataDAMConfig(network="convnet2_bn_w8", p=1.0, **PLAIN), digits)
    net = datadam.draw_network(0)
    real, syn = (torch.randn(10, n, *digits.shape, generator=generator) for n in (30, 2))
    attention = torch.zeros(())
    seen = [net.activations(x.flatten(0, 1)) for x in (real, syn)]
    maps = [F.normalize(outputs[0].abs().sum(1).flatten(1)).unflatten(0, (10, -1)).mean(1) for outputs, _ in seen]
    means = [features.unflatten(0, (10, -1)).mean(1) for _, features in seen]
    attention = (maps[0] - maps[1]).square().sum()
    expected = 100 * (attention + 0.01 * (means[0] - means[1]).square().sum())
    torch.testing.assert_close(datadam.loss(net, real, syn), expected, rtol=1e-4, atol=1e-4)


SHOWING = [
    ("alexnet", 8), ("vgg11", 32), ("resnet10_w8", 8), ("resnet18_w4", 16), ("resnet18_ap_w4", 16),
    ("resnetap10_w8", 16), ("densenet121_w4", 8), ("vit_tiny_w16", 8), ("lenet", 16),
]  # fmt: skip
"""Networks that show their layers, each with a size that it takes."""


@pytest.mark.parametrize(("network", "size"), SHOWING, ids=[name for name, _ in SHOWING])
def test_loss__of_every_network_that_shows_its_layers(few_digits, network, size, generator):
    """Maps of all layers but the last, the l2-normed sum over channels of activation^4; and features."""
    data = replace(few_digits, train_images=F.interpolate(few_digits.train_images, size))
    datadam = DataDAM(DataDAMConfig(network=network, ipc=1, batch_real=2, **PLAIN), data)
    net = datadam.draw_network(0)
    real = torch.randn(4, 2, *data.shape, generator=generator)
    syn = torch.randn(4, 1, *data.shape, generator=generator, requires_grad=True)
    loss = datadam.loss(net, real, syn)
    seen = [net.activations(x.flatten(0, 1)) for x in (real, syn)]
    expected = 0.01 * (seen[0][1].unflatten(0, (4, 2)).mean(1) - seen[1][1]).square().sum()
    for real_layer, syn_layer in list(zip(*(layers for layers, _ in seen), strict=True))[:-1]:
        maps = [F.normalize((x**4).sum(1).flatten(1)) for x in (real_layer, syn_layer)]
        expected = expected + (maps[0].unflatten(0, (4, 2)).mean(1) - maps[1]).square().sum()
    torch.testing.assert_close(loss, 100 * expected, rtol=1e-3, atol=1e-4)
    (gradient,) = torch.autograd.grad(loss, syn)
    assert gradient.isfinite().all() and gradient.flatten(1).norm(dim=1).min() > 1e-6


@pytest.mark.parametrize("network", ["mlp", "timm:resnet10t"])
def test_config__refuses_a_network_that_shows_no_layers(network, digits):
    with pytest.raises(InputError, match=f"datadam needs a network that shows its activations: {network} has no"):
        DataDAM(DataDAMConfig(network=network, **PLAIN), digits)


def test_layers__auto_leaves_out_the_last():
    assert chosen_layers("auto", 3) == [0, 1] and chosen_layers("3_1", 3) == [2, 0]


@pytest.mark.parametrize(("names", "blocks"), [("auto", 1), ("0", 3), ("4", 3), ("a", 3), ("", 3), ("1__2", 3)])
def test_layers__rejects(names, blocks):
    with pytest.raises(InputError, match="layers"):
        chosen_layers(names, blocks)


def test_config__of_paper_and_code_differ_as_documented():
    argv = ["--data", "cifar10", "--ipc", "10", "--config"]
    paper, code = (
        load_config(DataDAMConfig, [*argv, name], home="matching") for name in ("datadam_paper", "datadam_code")
    )
    assert (paper.p, paper.network, paper.batch_real, paper.iterations) == (4, "convnet3", 256, 8000)
    assert (code.p, code.network, code.batch_real, code.iterations) == (1, "convnet3_bn", 64, 20000)
    assert (paper.preprocess, code.preprocess) == ("zca", "mean_std")
