"""DM against a second, plain implementation written from the paper: one class, one image, one layer at a time."""

import pytest
import torch
from plain import plain_features
from torch import Tensor
from torch._dynamo.utils import counters

from core_dd.errors import InputError
from core_dd.judge.augment import DSAugment
from core_dd.judge.networks import build_network, reset
from core_dd.rng import stream
from core_dd.speed import bf16_pays, graph_bytes
from matching_dd.base import Features, class_chunks
from matching_dd.methods.cafe import CAFE, CAFEConfig
from matching_dd.methods.datadam import DataDAM, DataDAMConfig
from matching_dd.methods.dm import DM, DMConfig

CPU = torch.device("cpu")
PLAIN = {"bf16": False, "compile": False}


def plain_loss(net: torch.nn.Module, real: Tensor, syn: Tensor) -> Tensor:
    """Sum over classes and dimensions of the squared difference of mean features (Zhao & Bilen 2023, eq. 4)."""
    total = torch.zeros(())
    for own_real, own_syn in zip(real, syn, strict=True):
        mean_real = sum(plain_features(net, image) for image in own_real) / len(own_real)
        mean_syn = sum(plain_features(net, image) for image in own_syn) / len(own_syn)
        total = total + ((mean_real - mean_syn) ** 2).sum()
    return total


def test_loss__equals_plain_loop_in_value_and_gradient(digits, generator):
    dm = DM(DMConfig(network="convnet2_w16", **PLAIN), digits)
    net = dm.draw_network(0)
    real = torch.randn(3, 5, *digits.shape, generator=generator)
    syn = torch.randn(3, 2, *digits.shape, generator=generator, requires_grad=True)
    value, plain = dm.loss(net, real, syn), plain_loss(net, real, syn)
    torch.testing.assert_close(value, plain)
    gradients = [torch.autograd.grad(loss, syn)[0] for loss in (value, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
    assert gradients[0].abs().max() > 1e-3


@pytest.mark.parametrize("weights", [(0.7, 0.0), (0.7, 0.3)])
def test_loss__adds_weighted_moments(digits, generator, weights):
    """Variances, and third central moments, of each class's features (M3D, table 1)."""
    options = {"network": "convnet1_w8", "second_moment": weights[0], "third_moment": weights[1], **PLAIN}
    dm = DM(DMConfig(**options), digits)
    net = dm.draw_network(0)
    real = torch.randn(2, 5, *digits.shape, generator=generator)
    syn = torch.randn(2, 3, *digits.shape, generator=generator, requires_grad=True)
    plain = plain_loss(net, real, syn)
    for own_real, own_syn in zip(real, syn, strict=True):
        moments = []
        for images in (own_real, own_syn):
            features = torch.stack([plain_features(net, image) for image in images])
            centred = features - features.mean(0)
            moments.append([(centred**order).mean(0) for order in (2, 3)])
        for weight, *pair in zip(weights, *moments, strict=True):
            plain = plain + weight * ((pair[0] - pair[1]) ** 2).sum()
    value = dm.loss(net, real, syn)
    torch.testing.assert_close(value, plain)
    gradients = [torch.autograd.grad(loss, syn)[0] for loss in (value, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)
    assert dm.loss(net, real, real.clone()) < 1e-8


@pytest.mark.parametrize("second_moment", [0.0, 0.5])
def test_loss__of_pixels_is_the_linear_mmd_of_the_images(digits, generator, second_moment):
    """DataDAM's supplement, table 3: sum over pixels of the squared difference of mean images; no network."""
    dm = DM(DMConfig(compared="pixels", second_moment=second_moment, network="convnet1_w8", **PLAIN), digits)
    real, syn = (torch.randn(2, n, *digits.shape, generator=generator) for n in (5, 3))
    plain = sum(((r.mean(0) - s.mean(0)) ** 2).sum() for r, s in zip(real, syn, strict=True))
    plain += second_moment * sum(
        ((r.var(0, correction=0) - s.var(0, correction=0)) ** 2).sum() for r, s in zip(real, syn, strict=True)
    )
    torch.testing.assert_close(dm.loss(dm.draw_network(0), real, syn), plain)


def test_loss__zero_when_synthetic_is_real(digits, generator):
    dm = DM(DMConfig(network="convnet1_w16", **PLAIN), digits)
    real = torch.randn(3, 4, *digits.shape, generator=generator)
    assert dm.loss(dm.draw_network(0), real, real.clone()) < 1e-8


def test_step__equals_plain_iteration(digits):
    """Three iterations of the command: fresh network, one DSA draw per class, sum of losses, joint step, momentum."""
    config = DMConfig(network="convnet1_w8", ipc=2, batch_real=6, lr_img=3.0, seed=4, **PLAIN)
    ours = DM(config, digits)
    images, velocity = ours.synthetic.images.detach().clone(), torch.zeros_like(ours.synthetic.images)
    for step in range(3):
        net = reset(DM(config, digits).net, stream(4, "drawn network", step))
        leaf, loss = images.clone().requires_grad_(), torch.zeros(())
        for k in range(10):
            members = digits.class_indices()[k]
            chosen = members[torch.randperm(len(members), generator=stream(4, "real", step, k))[:6]]
            real = (digits.train_images[chosen] / 255 - digits.mean[0]) / digits.std[0]
            dsa = DSAugment("color_crop_cutout_scale_rotate")
            pair = dsa.siamese(real[None], leaf[k : k + 1], [stream(4, "augment", step, k)])
            loss = loss + plain_loss(net, *pair)
        (gradient,) = torch.autograd.grad(loss, leaf)
        velocity = 0.5 * velocity + gradient
        images = images - 3.0 * velocity
        torch.testing.assert_close(ours.step(step), loss.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.synthetic.images.detach(), images, rtol=1e-3, atol=1e-4)


def test_draw_network__is_new_every_step_and_repeatable(digits):
    dm = DM(DMConfig(network="convnet1_w8", **PLAIN), digits)
    weights = [torch.cat([p.flatten() for p in dm.draw_network(step).parameters()]) for step in (0, 1, 0)]
    assert torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[1])
    assert not any(parameter.requires_grad for parameter in dm.net.parameters())


def test_chunks__by_default_in_parts_on_a_cpu():
    config, shape, device = DMConfig(ipc=10), (3, 32, 32), torch.device("cpu")
    each = graph_bytes(build_network("convnet3", shape, 100), shape, lambda net, images: net.features(images))
    parts = class_chunks(100, shape, config, each, device)
    assert [k for part in parts for k in part] == list(range(100)) and len(parts) > 1
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert class_chunks(100, shape, config, each, device, whole=True) == [range(100)]
    large = DMConfig(ipc=1000)  # a class of its own is too large, and yet it goes
    assert class_chunks(10, shape, large, each, device) == [range(k, k + 1) for k in range(10)]


def test_graph_bytes__counts_what_the_method_looks_at(digits):
    """CAFE holds every layer's activations beside the features, DataDAM the powers of its attention maps."""
    options = {"network": "convnet2_w16", "ipc": 1, "batch_real": 8, **PLAIN}
    dm, cafe = DM(DMConfig(**options), digits), CAFE(CAFEConfig(**options, batch_watched=8), digits)
    datadam = DataDAM(DataDAMConfig(**options), digits)
    plain, layers, maps = (graph_bytes(dm.net, digits.shape, method.measure) for method in (dm, cafe, datadam))
    assert layers - plain >= 4 * sum(cafe.widths[:-1]) and maps - plain >= 4 * sum(datadam.widths[:-1])


@pytest.mark.parametrize("memory_gib", [0.0002, 0.0005])
def test_step__chunks_of_classes_give_the_same_step(digits, memory_gib):
    options = {"network": "convnet2_w16", "ipc": 3, "batch_real": 20, **PLAIN}
    whole, parts = DM(DMConfig(**options), digits), DM(DMConfig(**options, memory_gib=memory_gib), digits)
    assert len(whole.chunks) == 1 < len(parts.chunks)
    assert [k for chunk in parts.chunks for k in chunk] == list(range(10))
    for step in range(3):
        torch.testing.assert_close(parts.step(step), whole.step(step))
        torch.testing.assert_close(parts.synthetic.images, whole.synthetic.images, rtol=1e-4, atol=1e-5)


def test_batch_norm__statistics_span_all_classes(digits, generator):
    """One forward per set over all classes, as the published code does for BatchNorm networks; never in pieces."""
    dm = DM(DMConfig(network="convnet1_bn_w8", **PLAIN), digits)
    net = dm.draw_network(0)
    images = torch.randn(10, 60, *digits.shape, generator=generator)
    together = dm.features.fixed(net, images)
    torch.testing.assert_close(together, net.features(images.flatten(0, 1)).unflatten(0, (10, 60)))
    assert (together[:1] - dm.features.fixed(net, images[:1])).abs().max() > 1e-3


@pytest.mark.parametrize("count", [3, 37, 500])
def test_fixed__pieces_give_the_features_of_the_whole(digits, generator, count):
    dm = DM(DMConfig(network="convnet2_w8", **PLAIN), digits)
    net = dm.draw_network(0)
    images = torch.randn(2, count, *digits.shape, generator=generator)
    pieces = dm.features.fixed(net, images)
    assert not pieces.requires_grad
    torch.testing.assert_close(pieces, dm.features(net, images))


def gradient(digits, net_seed: int, **options) -> tuple[float, Tensor]:
    """DM's loss on digits at the start of a run, and its gradient."""
    matching = DM(DMConfig(**{"network": "convnet2_w32", "batch_real": 64} | options), digits)
    net = reset(matching.net, stream(net_seed, "net"))
    loss = matching.loss(net, matching.real.draw(0, range(10)), matching.synthetic.decoded(range(10)))
    return loss.item(), torch.autograd.grad(loss, matching.synthetic.images)[0].flatten()


@pytest.mark.slow
def test_compiled__equals_eager_in_fp32(digits, compiling):
    small = {"network": "convnet1_w8", "batch_real": 16}
    fast, plain = gradient(digits, 0, bf16=False, **small), gradient(digits, 0, **PLAIN | small)
    assert fast[0] == pytest.approx(plain[0], rel=1e-4)
    torch.testing.assert_close(fast[1], plain[1], rtol=1e-3, atol=1e-5)


def test_compiled__once_for_all_networks(digits, tracing):
    """Real and synthetic batches have a graph each, and new weights in the same network make no other."""
    dm = DM(DMConfig(network="convnet1_w8", ipc=2, batch_real=20), digits)
    dm.step(0)
    weights, graphs = next(dm.net.parameters()), counters["stats"]["unique_graphs"]
    before = weights.clone()
    for step in range(1, 4):
        dm.step(step)
    assert counters["stats"]["unique_graphs"] == graphs > 0
    assert next(dm.net.parameters()) is weights and not torch.equal(weights, before)


@pytest.mark.skipif(not bf16_pays("cpu"), reason="no bf16 units: features are fp32 anyway")
def test_bf16__agrees_with_fp32(digits):
    """Loss within 2 %, gradient within 15 %: bf16 rounds each activation by up to 2^-9, and its direction is kept.

    That is enough, because every iteration draws another random network, whose gradient differs by about 100 % of its
    length: the optimiser averages over noise an order of magnitude larger than the rounding.
    """
    loss, own = gradient(digits, 0, compile=False)
    loss_fp32, fp32 = gradient(digits, 0, **PLAIN)
    _, other = gradient(digits, 1, **PLAIN)
    assert loss == pytest.approx(loss_fp32, rel=0.02) and loss != loss_fp32
    error, noise = (own - fp32).norm() / fp32.norm(), (other - fp32).norm() / fp32.norm()
    assert 0 < error < 0.15
    assert error < noise / 5


def test_features__are_fp32_whatever_the_autocast(digits, generator):
    features = Features(CPU, compile=False)
    net = DM(DMConfig(network="convnet1_w8", **PLAIN), digits).draw_network(0)
    assert features.fixed(net, torch.randn(1, 2, *digits.shape, generator=generator)).dtype == torch.float32


@pytest.mark.parametrize("network", ["vit_tiny_w16", "timm:resnet10t", "mlp"])
def test_step__repeats_for_a_seed_with_every_network(digits, network):
    """Dropout is off, networks of other code are drawn by the seed, and torch's own generator is left alone."""
    images = []
    for seed in (0, 0, 1):
        dm = DM(DMConfig(network=network, ipc=1, batch_real=4, seed=seed, **PLAIN), digits)
        start, before = dm.synthetic.images.detach().clone(), torch.get_rng_state()
        for step in range(2):
            dm.step(step)
        assert torch.equal(torch.get_rng_state(), before)
        images.append(dm.synthetic.images.detach() - start)
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])
    assert images[0].abs().max() > 0


def test_config__needs_features(digits):
    def bare(in_shape, num_classes):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, num_classes))

    config = DMConfig(ipc=1, **PLAIN)
    config.network = bare  # what a name could stand for
    with pytest.raises(InputError, match="dm needs a network that shows its features"):
        DM(config, digits)
