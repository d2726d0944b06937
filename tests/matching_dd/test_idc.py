"""IDC against a second, plain implementation: the authors' loops, a step of one optimiser per class."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from plain import plain_tiles
from torch import Tensor

from core_dd import evaluate
from core_dd.config import load_config
from core_dd.errors import InputError
from core_dd.judge.augment import IDCAugment, cutmix
from core_dd.judge.networks import reset
from core_dd.rng import stream
from core_dd.sets.distilled import new_meta
from matching_dd import coreset, distill
from matching_dd.methods.idc import IDC, IDCConfig

PLAIN = {"bf16": False, "compile": False}
SMALL = {"network": "convnet2_w16", "compile": False, "tracker": "none", "side_img": 8, "real_net": 256}


def conv_gradients(net: torch.nn.Module, images: Tensor, label: int) -> list[Tensor]:
    """Of the mean cross-entropy of one class's images, with graph: of the 4-d weights only."""
    loss = F.cross_entropy(net(images), torch.full((len(images),), label))
    return torch.autograd.grad(loss, [p for p in net.parameters() if p.ndim == 4], create_graph=True)


def plain_distance(real: list[Tensor], syn: list[Tensor], kind: str) -> Tensor:
    """Facts A7: summed over the layers."""
    differences = [r.detach() - s for r, s in zip(real, syn, strict=True)]
    return sum(((d**2) if kind == "mse" else d.abs()).sum() for d in differences)


@pytest.mark.parametrize("kind", ["mse", "l1"])
def test_loss__equals_plain_loop_in_value_and_gradient(digits, generator, kind):
    idc = IDC(IDCConfig(network="convnet2_w16", distance=kind, **PLAIN), digits)
    net, labels = idc.draw_network(0), torch.tensor([4, 1, 8])
    real = torch.randn(3, 5, *digits.shape, generator=generator)
    syn = torch.randn(3, 2, *digits.shape, generator=generator, requires_grad=True)
    other = copy.deepcopy(net).requires_grad_()
    plain = sum(
        plain_distance(conv_gradients(other, real[k], label), conv_gradients(other, syn[k], label), kind)
        for k, label in enumerate(labels.tolist())
    )
    value = idc.loss(net, real, syn, labels)
    torch.testing.assert_close(value, plain, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(loss, syn)[0] for loss in (value, plain)]
    assert gradients[1].abs().max() > 1e-4
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3 * float(gradients[1].abs().max()))


@pytest.mark.parametrize(("name", "ipc"), [("cifar10", 10), ("mnist", 1)])
def test_idc_i__starts_from_the_first_images_of_each_class(digits, name, ipc):
    argv = ["--config", f"idc_i:{name}", "--ipc", str(ipc), "--data=digits", "--network=convnet1_w8"]
    config = load_config(IDCConfig, argv, home="matching")
    assert config.factor == 1
    pixels = IDC(replace(config, **PLAIN), digits).synthetic.pixels().mul(255).round()
    first = [digits.train_images[digits.train_labels == k][: config.ipc] for k in range(10)]
    assert torch.equal(pixels, torch.stack(first).float())


@pytest.mark.parametrize("kind", ["mse", "l1"])
def test_loss__zero_when_synthetic_is_real(digits, generator, kind):
    idc = IDC(IDCConfig(network="convnet1_w16", distance=kind, **PLAIN), digits)
    net, labels = idc.draw_network(0), torch.arange(3)
    real, other = torch.randn(2, 3, 4, *digits.shape, generator=generator)
    assert idc.loss(net, real, real.clone(), labels) < 1e-4 * idc.loss(net, real, other, labels)


def plain_idc(data, config, steps: int) -> Tensor:
    """So many networks' lives
    (Kim et al. 2022), in pixels: clamp, sweep over the classes, train on real data, sweep again."""
    method, seed = IDC(config, data), config.seed
    pixels = method.synthetic.images.detach().clone().requires_grad_()
    lr = config.lr_img * config.ipc / 10 * (8 / config.side_img) ** 2
    image_sgd = torch.optim.SGD([pixels], lr=lr, momentum=config.momentum)
    both, alone = IDCAugment("color_crop_cutout"), IDCAugment("color_crop")
    for step in range(steps):
        with torch.no_grad():
            pixels.clamp_(0, 1)
        net = reset(method.net, stream(seed, "drawn network", step)).requires_grad_()
        net_sgd = torch.optim.SGD(net.parameters(), lr=config.lr_net, momentum=0.9, weight_decay=5e-4)

        def train(images: int, *names, net=net, sgd=net_sgd) -> None:
            order = torch.randperm(len(data.train_labels), generator=stream(seed, "order", *names))
            for i in range(-(-images // config.batch_train)):
                batch = order[i * config.batch_train : (i + 1) * config.batch_train]
                x = (data.train_images[batch] / 255 - data.mean[0]) / data.std[0]
                y = F.one_hot(data.train_labels[batch], data.num_classes).float()
                x = alone.per_image(x[None], [stream(seed, "augment network", *names, i)])
                x, y = cutmix(x, y[None], config.cutmix, [stream(seed, "cutmix", *names, i)])
                sgd.zero_grad()
                F.cross_entropy(net(x[0]), y[0]).backward()
                sgd.step()

        for number in range(config.pretrain):
            train(len(data.train_labels), "pretrain", step, number)
        for turn in range(step * config.outer, (step + 1) * config.outer):
            for k in range(data.num_classes):
                syn = plain_tiles(pixels[k], config.factor, config.decode, config.max_syn)
                syn = (syn - data.mean[0]) / data.std[0]
                if config.max_syn < len(syn):
                    syn = syn[torch.randperm(len(syn), generator=stream(seed, "synthetic", turn, k))[: config.max_syn]]
                real = method.real.draw(turn, range(k, k + 1))
                real, syn = both.siamese(real, syn[None], [stream(seed, "augment", turn, k)])
                on_real, on_syn = conv_gradients(net, real[0], k), conv_gradients(net, syn[0], k)
                loss = plain_distance(on_real, on_syn, config.distance)
                image_sgd.zero_grad(set_to_none=False)  # a zero gradient moves the other classes by their momentum
                (pixels.grad,) = torch.autograd.grad(loss, pixels)
                image_sgd.step()
            train(config.real_net, "train", turn, 0)
        net.requires_grad_(False)
    return pixels.detach()


@pytest.mark.parametrize(
    "options",
    [
        {"factor": 2, "max_syn": 5},
        {"factor": 2, "decode": "multi"},
        {"factor": 2, "decode": "bound", "max_syn": 7, "init": "noise_pixels"},
        {"factor": 1, "init": "real", "distance": "l1", "lr_img": 2.0},
    ],
)
def test_step__equals_plain_iteration(few_digits, options):
    options = {"ipc": 2, "outer": 3, "lr_img": 1.0, "real_net": 20, "batch_train": 8, "batch_real": 6} | options
    config = IDCConfig(network="convnet1_w8", seed=3, pretrain=1, cutmix=0.7, side_img=8, **options, **PLAIN)
    ours, plain = IDC(config, few_digits), plain_idc(few_digits, config, steps=2)
    before = ours.synthetic.images.detach().clone()
    for step in range(2):
        ours.step(step)
    assert (plain - before).abs().max() > 0.05
    torch.testing.assert_close(ours.synthetic.images.detach(), plain, rtol=1e-3, atol=4e-5)


def test_lr__scales_with_ipc_and_image_side(digits):
    def lr(**options) -> float:
        return IDC(IDCConfig(network="convnet1_w8", **options, **PLAIN), digits).optimizer.param_groups[0]["lr"]

    assert lr(lr_img=0.1, side_img=8) == pytest.approx(0.1)
    assert lr(lr_img=0.1, side_img=16, ipc=5) == pytest.approx(0.1 * 0.5 * 0.25)


def test_clamp__at_the_start_of_a_network_only(digits):
    idc = IDC(IDCConfig(network="convnet1_w8", outer=2, real_net=8, lr_img=500.0, side_img=8, **PLAIN), digits)
    idc.step(0)
    images = idc.synthetic.images
    assert images.min() < 0 or images.max() > 1  # steps may leave the range
    idc.begin_network(1)
    assert images.min() == 0 or images.max() == 1
    assert images.min() >= 0 and images.max() <= 1


def objective(idc: IDC) -> float:
    """The loss at networks, untrained and trained, that no iteration drew."""
    total = 0.0
    for step in range(1000, 1002):
        net = idc.begin_network(step)
        for turn in range(3 * step, 3 * step + 3):
            total += idc.class_loss(net, turn, range(10)).item()
            idc.train(net, turn)
    return total


@pytest.mark.slow
def test_distill__lowers_its_objective_and_beats_random_selection(digits):
    """Paired: the same seed draws the random set, the starting point, and the classifiers."""
    options = SMALL | {"outer": 10, "lr_img": 0.5, "factor": 1, "init": "real", "iterations": 8}
    config = IDCConfig(ipc=1, **options)
    before, trained = IDC(config, digits), IDC(config, digits)
    for step in range(config.iterations):
        trained.step(step)
    assert objective(trained) < 0.8 * objective(before)
    sets = trained.synthetic.to_distilled(new_meta(digits, method="idc", ipc=1, seed=0)), coreset("random", digits, 1)
    ours, random = (evaluate(dset, digits, "quick", "convnet2_w16", runs=2).mean for dset in sets)
    assert ours - random > 0.04  # measured: 0.11


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side_img": 0}, "side_img must be >= 1, got 0"),
        ({"real_net": 0}, "real_net must be >= 1, got 0"),
        ({"pretrain": -1}, "pretrain must be >= 0, got -1"),
        ({"cutmix": 1.5}, r"cutmix must be in \[0, 1\], got 1.5"),
        ({"factor": 9}, "factor 9 does not fit images of 8x8"),
        ({"decode": "mulit"}, "unknown decode 'mulit'; did you mean 'multi'"),
        ({"decode": "bound", "max_syn": None}, "decode bound needs max_syn >= ipc 1, got None"),
        ({"decode": "bound", "max_syn": 2, "ipc": 3}, "decode bound needs max_syn >= ipc 3, got 2"),
        ({"ipc": 40}, "the start takes ipc x factor\\^2 = 160 real images of every class"),
    ],
)
def test_distill__refuses(digits, options, message):
    with pytest.raises(InputError, match=message):
        distill(**{"method": "idc", "data": digits, "ipc": 1, "iterations": 1} | SMALL | options)
