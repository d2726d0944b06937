"""M3D against a second, plain implementation: one pair of images, one class, one step at a time."""

import pytest
import torch
from plain import plain_decode, plain_features
from torch import Tensor

from core_dd.judge.augment import IDCAugment
from core_dd.judge.networks import reset
from core_dd.rng import stream
from matching_dd.methods.m3d import M3D, M3DConfig

PLAIN = {"bf16": False, "compile": False}
BLOCKS = ((0, 0, 1), (1, 1, 1), (0, 1, -2))
"""Of [real, synthetic] rows: which pairs are averaged, and the sign and weight of each mean."""


def plain_mmd(real: list[Tensor], syn: list[Tensor], kernel: str) -> Tensor:
    """Biased V-statistic of two lists of feature vectors
    (Zhang et al. 2024, eq. 6), standardised for kernels without a width."""
    pooled = [*syn, *real]
    distances = sum(((x - y) ** 2).sum().detach() for x in pooled for y in pooled)
    width = distances / (len(pooled) ** 2 - len(pooled))
    if kernel != "gaussian":
        centre = (sum(real) / len(real)).detach()
        real, syn = ([(x - centre) / width.sqrt() for x in xs] for xs in (real, syn))
    rows = real, syn

    def value(x: Tensor, y: Tensor) -> Tensor:
        squared = ((x - y) ** 2).sum()
        if kernel == "gaussian":
            return sum(torch.exp(-squared / (width * 2.0**k)) for k in range(-2, 3))
        if kernel == "laplace":
            return sum(torch.exp(-g * squared) for g in (0.1, 1.0, 5.0))
        return x @ y if kernel == "linear" else (x @ y + 1) ** 2

    def mean(xs: list[Tensor], ys: list[Tensor]) -> Tensor:
        return sum(value(x, y) for x in xs for y in ys) / (len(xs) * len(ys))

    return sum(weight * mean(rows[a], rows[b]) for a, b, weight in BLOCKS)


def plain_loss(net: torch.nn.Module, real: Tensor, syn: Tensor, kernel: str = "gaussian") -> Tensor:
    """Sum over classes."""
    features = [[[plain_features(net, image) for image in own] for own in images] for images in (real, syn)]
    return sum(plain_mmd(*own, kernel) for own in zip(*features, strict=True))


@pytest.mark.parametrize("kernel", ["gaussian", "linear", "polynomial", "laplace"])
def test_loss__equals_plain_loop_in_value_and_gradient(digits, generator, kernel):
    m3d = M3D(M3DConfig(network="convnet1_w8", kernel=kernel, **PLAIN), digits)
    net = m3d.draw_network(0)
    real = torch.randn(2, 4, *digits.shape, generator=generator)
    syn = (real[:, :3] + 0.1 * torch.randn(2, 3, *digits.shape, generator=generator)).requires_grad_()
    value, plain = m3d.loss(net, real, syn), plain_loss(net, real, syn, kernel)
    torch.testing.assert_close(value, plain, rtol=1e-3, atol=1e-4)
    gradients = [torch.autograd.grad(loss, syn)[0] for loss in (value, plain)]
    assert gradients[1].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3 * float(gradients[1].abs().max()))


@pytest.mark.parametrize("kernel", ["gaussian", "linear", "polynomial", "laplace"])
def test_loss__zero_when_synthetic_is_real(digits, generator, kernel):
    m3d = M3D(M3DConfig(network="convnet1_w8", kernel=kernel, **PLAIN), digits)
    net, real = m3d.draw_network(0), torch.randn(3, 4, *digits.shape, generator=generator)
    other = m3d.loss(net, real, torch.randn(3, 4, *digits.shape, generator=generator))
    assert abs(m3d.loss(net, real, real.clone())) < 1e-5 * other


def test_step__equals_plain_iteration(few_digits):
    """Pixels clamped, decoded and normalised; one augmentation, one loss and one step of SGD per class, in order."""
    config = M3DConfig(network="convnet1_w8", ipc=2, batch_real=6, max_syn=None, lr_img=0.02, ipm=2, seed=4, **PLAIN)
    ours = M3D(config, few_digits)
    images = ours.synthetic.images.detach().clone().requires_grad_()
    optimizer = torch.optim.SGD([images], lr=0.02, momentum=0.5)
    net = M3D(config, few_digits).net
    for step in range(3):
        reset(net, stream(4, "drawn network", step // 2))
        total = torch.zeros(())
        images.data.clamp_(0, 1)
        for k, members in enumerate(few_digits.class_indices()):
            chosen = members[torch.randperm(len(members), generator=stream(4, "real", step, k))[:6]]
            pair = few_digits.train_images[chosen] / 255, plain_decode(images[k], 2)
            real, syn = ((pixels[None] - few_digits.mean[0]) / few_digits.std[0] for pixels in pair)
            augment = IDCAugment("color_crop_cutout")
            loss = plain_loss(net, *augment.siamese(real, syn, [stream(4, "augment", step, k)]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total = total + loss.detach()
        torch.testing.assert_close(ours.step(step), total, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.synthetic.images.detach(), images.detach(), rtol=1e-3, atol=1e-4)


def test_draw_network__is_kept_for_ipm_iterations(digits):
    m3d = M3D(M3DConfig(network="convnet1_w8", ipm=3, **PLAIN), digits)
    first, *others = (next(m3d.draw_network(step).parameters()).clone() for step in range(4))
    assert [torch.equal(first, other) for other in others] == [True, True, False]


def test_max_syn__samples_decoded_images(digits):
    options = {"network": "convnet1_w8", "ipc": 3, "augment": "none", **PLAIN}
    m3d = M3D(M3DConfig(max_syn=5, **options), digits)
    _, syn = m3d.draw(0, range(2, 4))
    assert syn.shape == (2, 5, 1, 8, 8)
    for own, decoded in zip(syn, m3d.synthetic.decoded(range(2, 4)), strict=True):
        matches = (own[:, None] == decoded[None]).flatten(2).all(2)
        assert (matches.sum(1) == 1).all() and matches.any(0).sum() == 5
