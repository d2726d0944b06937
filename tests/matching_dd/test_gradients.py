"""Gradients that are differentiated once more: of groups one by one or all at once, compiled or not, anywhere."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from core_dd.judge.networks import build_network, reset
from core_dd.rng import stream
from matching_dd.gradients import Gradients

SHAPE, CPU = (1, 8, 8), torch.device("cpu")


def drawn(name: str) -> torch.nn.Module:
    """A network whose weights are drawn, without gradients."""
    return reset(build_network(name, SHAPE, 10).requires_grad_(False), stream(0, "net"))


@pytest.fixture
def net():
    return drawn("convnet2_w8")


@pytest.fixture
def groups(generator):
    """Images (3, 5, 1, 8, 8) and soft labels (3, 5, 10), both leaves."""
    images, logits = torch.randn(3, 5, *SHAPE, generator=generator), torch.randn(3, 5, 10, generator=generator)
    return images.requires_grad_(), logits.softmax(2).requires_grad_()


def plain(net: torch.nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Group by group, by two calls of autograd."""
    each = []
    for x, y in zip(images, labels, strict=True):
        params = {name: p.detach().requires_grad_() for name, p in net.named_parameters()}
        loss = -(F.log_softmax(functional_call(net, params, (x,)), 1) * y).sum(1).mean()
        each.append(torch.autograd.grad(loss, list(params.values()), create_graph=True))
    return [torch.stack(own) for own in zip(*each, strict=True)]


def second(gradients: list[Tensor], leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """What the squared norm of the gradients does to the leaves."""
    return torch.autograd.grad(sum(g.square().sum() for g in gradients), leaves)


@pytest.mark.parametrize("way", ["one by one", "all at once", pytest.param("compiled", marks=pytest.mark.slow)])
def test_gradients__and_their_own_equal_plain_autograd(net, groups, way, request):
    if way == "compiled":
        request.getfixturevalue("compiling")
        net = drawn("convnet1_w8")  # compiling takes long enough
    gradients = Gradients(net, CPU, bf16=False, compile=way == "compiled")
    gradients._whole = way == "all at once"
    ours, theirs = gradients(*groups), plain(net, *groups)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    for own, other in zip(second(ours, groups), second(theirs, groups), strict=True):
        assert other.abs().max() > 1e-4
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("most", [None, 2, 5])
def test_in_parts__are_the_same_constants(net, groups, most):
    gradients = Gradients(net, CPU, bf16=False, compile=False)
    parts = gradients.in_parts(*groups, most)
    assert not any(own.requires_grad for own in parts)
    torch.testing.assert_close(parts, [own.detach() for own in gradients(*groups)], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("compile", [False, True])
def test_at__other_weights_are_differentiated_too(net, groups, compile, request):
    if compile:
        request.getfixturevalue("tracing")
        net = drawn("convnet1_w8")  # tracing takes long enough
    params = {name: (1.5 * p).requires_grad_() for name, p in net.named_parameters()}
    images, labels = (group[0] for group in groups)
    loss = -(F.log_softmax(functional_call(net, params, (images,)), 1) * labels).sum(1).mean()
    theirs = torch.autograd.grad(loss, list(params.values()), create_graph=True)
    ours = Gradients(net, CPU, bf16=False, compile=compile).at(params, images, labels)
    own, other = (second(gradients, list(params.values())) for gradients in (ours, theirs))
    largest = max(float(slope.abs().max()) for slope in other)  # a bias before a normalisation has none of its own
    torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4 * largest)


def test_at__batch_normalisation_in_training(generator):
    net = build_network("convnet1_bn_w8", SHAPE, 10).requires_grad_(False).train()
    images = torch.randn(4, *SHAPE, generator=generator, requires_grad=True)
    params = {name: p.detach().requires_grad_() for name, p in net.named_parameters()}
    gradients = Gradients(net, CPU, bf16=False, compile=False).at(params, images, torch.arange(4))
    (slope,) = second(gradients, [images])
    assert slope.abs().max() > 0 and int(net.blocks[0][1].num_batches_tracked) == 1
