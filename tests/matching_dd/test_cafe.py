"""CAFE against a second, plain implementation of its loss, and its two watchers."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from plain import plain_layers
from torch import Tensor

from core_dd.errors import InputError
from core_dd.judge.augment import DSAugment
from core_dd.judge.networks import reset
from core_dd.rng import stream
from matching_dd.methods.cafe import CAFE, CAFEConfig, span

SMALL = {"network": "convnet2_w8", "ipc": 1, "batch_real": 8, "batch_watched": 8, "bf16": False, "compile": False}


def plain_loss(net: torch.nn.Module, real: Tensor, syn: Tensor) -> Tensor:
    """Alignment of ReLU 1 (0.1), the last ReLU (1), the last pooling (1), and once more of the flattened features;
    then 0.01 times the summed cross-entropy of real images by their inner products with synthetic means
    (Wang et al. 2022)."""
    total, seen, centres = torch.zeros(()), [], []
    for own in zip(real, syn, strict=True):
        layers = [[plain_layers(net, image) for image in images] for images in own]
        means = [[sum(outputs[i] for outputs, _ in images) / len(images) for images in layers] for i in (0, 1)]
        features = [torch.stack([features for _, features in images]) for images in layers]
        total = total + 0.1 * ((means[0][0] - means[0][1]) ** 2).sum() + ((means[1][0] - means[1][1]) ** 2).sum()
        total = total + 2 * ((features[0].mean(0) - features[1].mean(0)) ** 2).sum()
        seen.append(features[0])
        centres.append(features[1].mean(0))
    for label, images in enumerate(seen):
        for features in images:
            logits = torch.stack([features @ centre for centre in centres])
            total = total - 0.01 * logits.log_softmax(0)[label]
    return total


def test_loss__equals_plain_loop_in_value_and_gradient(digits, generator):
    cafe = CAFE(CAFEConfig(**SMALL), digits)
    net = cafe.draw_network(0)
    real = torch.randn(4, 3, *digits.shape, generator=generator)
    syn = torch.randn(4, 2, *digits.shape, generator=generator, requires_grad=True)
    value, plain = cafe.loss(net, real, syn), plain_loss(net, real, syn)
    torch.testing.assert_close(value, plain, rtol=1e-4, atol=1e-4)
    gradients = [torch.autograd.grad(loss, syn)[0] for loss in (value, plain)]
    assert gradients[1].abs().max() > 1e-2
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4 * float(gradients[1].abs().max()))


def plain_cafe(cafe: CAFE, lives: int) -> Tensor:
    """So many networks' lives of `max_steps` image steps, each followed by `max_epochs` passes of plain SGD over the
    synthetic images, each image augmented by itself (Wang et al. 2022, watchers that are never content)."""
    config, images, velocity = cafe.config, cafe.synthetic.images.detach().clone(), 0.0
    dsa = DSAugment("color_crop_cutout_scale_rotate")
    labels = torch.arange(cafe.data.num_classes).repeat_interleave(config.ipc)
    for life in range(lives):
        net = reset(cafe.net, stream(config.seed, "drawn network", life))
        for moment in range(life * config.max_steps, (life + 1) * config.max_steps):
            leaf, classes = images.clone().requires_grad_(), range(cafe.data.num_classes)
            keys = [stream(config.seed, "augment", moment, k) for k in classes]
            real, syn = dsa.siamese(cafe.real.draw(moment, classes), leaf, keys)
            (gradient,) = torch.autograd.grad(plain_loss(net, real, syn), leaf)
            velocity = 0.5 * velocity + gradient
            images = images - config.lr_img * velocity
            weights = list(net.requires_grad_().parameters())
            for epoch in range(moment * (config.max_epochs + 1) + 1, (moment + 1) * (config.max_epochs + 1)):
                key = stream(config.seed, "epoch", epoch)
                for batch in torch.randperm(len(labels), generator=key).split(config.batch_train):
                    own = dsa.per_image(images.flatten(0, 1)[batch][None], [key])[0]
                    slopes = torch.autograd.grad(F.cross_entropy(net(own), labels[batch]), weights)
                    with torch.no_grad():
                        for weight, slope in zip(weights, slopes, strict=True):
                            weight -= config.lr_net * slope
            net.requires_grad_(False)
    return images


def test_step__equals_plain_iterations(few_digits, hasty):
    options = {"steady": 1e-9, "moved": 2.0, "max_steps": 3, "max_epochs": 3, "batch_train": 3, "lr_net": 0.05}
    config = CAFEConfig(**SMALL | options | {"batch_real": 3, "augment": "auto", "seed": 5})
    expected, ours = plain_cafe(CAFE(config, few_digits), 2), CAFE(config, few_digits)
    start = ours.synthetic.images.detach().clone()
    for life in range(2):
        ours.step(life)
    moved = (expected - start).abs().max().item()
    assert moved > 0.1
    torch.testing.assert_close(ours.synthetic.images.detach(), expected, rtol=1e-3, atol=1e-3 * moved)


def test_loss__alignment_is_zero_when_synthetic_is_real(digits, generator):
    cafe = CAFE(CAFEConfig(discrimination=0.0, **SMALL), digits)
    real = torch.randn(10, 4, *digits.shape, generator=generator)
    assert cafe.loss(cafe.draw_network(0), real, real.clone()) < 1e-6


def test_loss__of_batch_norm_takes_all_classes_together(digits, generator):
    cafe = CAFE(CAFEConfig(**SMALL | {"network": "convnet1_bn_w8"}), digits)
    net = cafe.draw_network(0)
    real = torch.randn(10, 4, *digits.shape, generator=generator)
    layers, features = net.activations(real.flatten(0, 1))
    syn = real[:, :2]
    syn_layers, syn_features = net.activations(syn.flatten(0, 1))
    pairs = [(layers[0].flatten(1), syn_layers[0].flatten(1)), (features, syn_features), (features, syn_features)]
    expected = sum((a.unflatten(0, (10, 4)).mean(1) - b.unflatten(0, (10, 2)).mean(1)).square().sum() for a, b in pairs)
    logits = features @ syn_features.unflatten(0, (10, 2)).mean(1).T
    labels = torch.arange(10).repeat_interleave(4)
    expected = expected + 0.01 * torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(cafe.loss(net, real, syn), expected, rtol=1e-4, atol=1e-4)


SHOWING = [
    ("alexnet", 8), ("vgg11", 32), ("resnet10_w8", 8), ("resnet18_w4", 16), ("resnet18_ap_w4", 16),
    ("resnetap10_w8", 16), ("densenet121_w4", 8), ("vit_tiny_w16", 8), ("lenet", 16),
]  # fmt: skip
"""Networks that show their layers, each with a size that it takes."""


@pytest.mark.parametrize(("network", "size"), SHOWING, ids=[name for name, _ in SHOWING])
def test_loss__of_every_network_that_shows_its_layers(few_digits, network, size, generator):
    """Class means of all layers, a tenth of it but of the last, and of the features, twice; the discrimination."""
    data = replace(few_digits, train_images=F.interpolate(few_digits.train_images, size))
    cafe = CAFE(CAFEConfig(**SMALL | {"network": network, "batch_real": 2}), data)
    net = cafe.draw_network(0)
    real = torch.randn(4, 2, *data.shape, generator=generator)
    syn = torch.randn(4, 1, *data.shape, generator=generator, requires_grad=True)
    loss = cafe.loss(net, real, syn)
    seen = [net.activations(x.flatten(0, 1)) for x in (real, syn)]
    pairs = [*zip(seen[0][0], seen[1][0], strict=True), (seen[0][1], seen[1][1])]
    weights = [0.1] * (len(pairs) - 2) + [1.0, 2.0]
    means = [(r.unflatten(0, (4, 2)).mean(1), s) for r, s in pairs]
    expected = sum(weight * (r - s).square().sum() for weight, (r, s) in zip(weights, means, strict=True))
    logits = seen[0][1] @ seen[1][1].T
    expected = expected + 0.01 * F.cross_entropy(logits, torch.arange(4).repeat_interleave(2), reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-3)
    (gradient,) = torch.autograd.grad(loss, syn)
    assert gradient.isfinite().all() and gradient.flatten(1).norm(dim=1).min() > 1e-6


def test_config__refuses_a_network_that_shows_no_layers(digits):
    with pytest.raises(InputError, match="cafe needs a network that shows its activations: mlp has no activations"):
        CAFE(CAFEConfig(**SMALL | {"network": "mlp"}), digits)


@pytest.mark.parametrize(
    ("options", "steps", "epochs"),
    [
        ({"steady": 2.0, "moved": 1e-9}, 10, 10),  # steady at once, and moved as soon as ten accuracies are known
        ({"steady": 1e-9, "moved": 2.0, "max_steps": 12, "max_epochs": 11}, 12, 11),  # never: the bounds hold
    ],
)
def test_step__watchers_decide_how_long(digits, monkeypatch, options, steps, epochs):
    cafe, taken, keys = CAFE(CAFEConfig(**SMALL, **options), digits), [], []
    cafe.optimizer.register_step_post_hook(lambda *_: taken.append(1))
    measure = cafe.accuracy
    monkeypatch.setattr(cafe, "accuracy", lambda net, key: keys.append(key) or measure(net, key))
    cafe.step(1)
    trainings = steps - 1 if options["steady"] > 1 else steps
    assert len(taken) == steps and len(keys) == steps + trainings * epochs
    assert len(set(keys)) == len(keys), "every accuracy has real images of its own"


def test_step__trains_the_network_between_image_steps_only(digits):
    cafe = CAFE(CAFEConfig(steady=2.0, moved=1e-9, **SMALL), digits)
    fresh = [parameter.clone() for parameter in cafe.draw_network(0).parameters()]
    cafe.step(0)
    trained = list(zip(fresh, cafe.net.parameters(), strict=True))
    assert all(not torch.equal(*pair) for pair in trained if pair[0].ndim > 1)
    assert not any(parameter.requires_grad for parameter in cafe.net.parameters())


def test_iterate__halves_the_learning_rate_as_published(few_digits, hasty):
    options = {"max_steps": 3, "max_epochs": 3, "iterations": 3000, **SMALL}
    cafe = CAFE(CAFEConfig(**options), few_digits)
    rates = []
    for step in (0, 1199, 1200, 1600, 1800, 2500):
        cafe.iterate(step)
        rates.append(cafe.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.025, 0.0125, 0.0125])
    falling = CAFE(CAFEConfig(**options, lr_course="cosine"), few_digits)
    falling.iterate(2000)
    assert falling.optimizer.param_groups[0]["lr"] == pytest.approx(0.0125 / 4)  # (1 + cos(2/3 pi)) / 2 of it


def test_span__looks_back_at_ten():
    assert span([0.0, 0.9, *[0.5] * 8, 0.6]) == pytest.approx(0.4)
