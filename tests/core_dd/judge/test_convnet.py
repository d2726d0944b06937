"""ConvNet: parameter counts of the published network, shapes, initialisation, bad input."""

import math

import pytest
import torch
import torch.nn.functional as F

from core_dd.errors import InputError
from core_dd.judge.networks import NETWORKS, build_network, reset

CIFAR10, MNIST, TINY = (3, 32, 32), (1, 28, 28), (3, 64, 64)

COUNTS = [
    ("convnet3", CIFAR10, 10, 320010),
    ("convnet3_bn", CIFAR10, 10, 320010),
    ("convnet3", MNIST, 10, 317706),
    ("convnet3_bn", MNIST, 10, 317706),
    ("convnet4", TINY, 200, 857160),
    ("convnet4_bn", TINY, 200, 857160),
    ("convnet3", CIFAR10, 100, 504420),
    ("convnet3_nonorm", CIFAR10, 10, 319242),
    ("convnet3_ln", CIFAR10, 10, 663306),
    ("convnet3_nonorm", MNIST, 10, 316938),
    ("convnet3_ln", MNIST, 10, 661002),
    ("convnet4_nonorm", TINY, 200, 856136),
    ("convnet4_ln", TINY, 200, 2248776),
    ("convnet3_nonorm", CIFAR10, 100, 503652),
    ("convnet3_ln", CIFAR10, 100, 847716),
    ("convnet3_w32", CIFAR10, 10, 24714),
    ("convnet3_w64", CIFAR10, 10, 86282),
    ("convnet3_w256", CIFAR10, 10, 1229834),
    ("convnet1", CIFAR10, 10, 331530),
    ("convnet2", CIFAR10, 10, 233610),
    ("convnet4", CIFAR10, 10, 452490),
    ("convnet3", TINY, 200, 1938120),
    ("convnet4", TINY, 10, 467850),
    ("convnet5", (3, 128, 128), 10, 615690),
    ("convnet6", (3, 128, 128), 10, 748170),
]


@pytest.mark.parametrize(("name", "shape", "classes", "count"), COUNTS, ids=lambda value: str(value))
def test_build_network__has_the_published_parameter_count(name, shape, classes, count):
    assert sum(p.numel() for p in build_network(name, shape, classes).parameters()) == count


def test_blocks__mnist_runs_32_16_8_4(generator):
    net, sizes = build_network("convnet3", MNIST, 10, generator), []
    for block in net.blocks:
        block[0].register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-1]))
    features = net.features(torch.randn(2, *MNIST, generator=generator))
    assert sizes == [32, 16, 8]
    assert features.shape == (2, 2048)


@pytest.mark.parametrize(
    "name", [*(f"convnet{d}" for d in (1, 2, 3)), "convnet3_bn_w32", "convnet2_ln", "convnet3_nopool"]
)
def test_forward__takes_8x8_and_is_the_classifier_of_features(name, generator):
    net = build_network(name, (1, 8, 8), 10, generator)
    x = torch.randn(4, 1, 8, 8, generator=generator)
    net.eval()
    torch.testing.assert_close(net(x), net.classifier(net.features(x)))


def test_forward__equals_the_layers_written_out(generator):
    net = build_network("convnet2_leakyrelu_maxpool", (3, 8, 8), 5, generator)
    x = torch.randn(4, 3, 8, 8, generator=generator)
    parameters = dict(net.named_parameters())
    for name in list(parameters):
        if ".1." in name:  # norms start at 1 and 0; give them something to do
            parameters[name].data.normal_(generator=generator)
    out = x
    for i in range(2):
        out = F.conv2d(out, parameters[f"blocks.{i}.0.weight"], parameters[f"blocks.{i}.0.bias"], padding=1)
        centred = out - out.mean((2, 3), keepdim=True)
        out = centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
        out = out * parameters[f"blocks.{i}.1.weight"][:, None, None] + parameters[f"blocks.{i}.1.bias"][:, None, None]
        out = torch.where(out > 0, out, 0.01 * out).unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
    torch.testing.assert_close(net.features(x), out.flatten(1))
    torch.testing.assert_close(
        net(x), out.flatten(1) @ parameters["classifier.weight"].T + parameters["classifier.bias"]
    )


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_avg_pool__every_form_is_the_same(size, layout, dtype, generator):
    pool = build_network("convnet1", (3, size, size), 2, generator).blocks[0][3]
    x = torch.randn(2, 4, size, size, generator=generator).to(dtype=dtype, memory_format=layout).requires_grad_()
    expected = F.avg_pool2d(x, 2)
    weights = torch.randn(expected.shape, generator=generator).to(dtype)
    [gradient] = torch.autograd.grad((expected * weights).sum(), x)
    for form in (pool, torch.compile(pool, backend="eager")):
        torch.testing.assert_close(form(x), expected)
        torch.testing.assert_close(torch.autograd.grad((form(x) * weights).sum(), x)[0], gradient)


@pytest.mark.parametrize(
    ("suffix", "kind"), [("gn", "GroupNorm(4, "), ("in", "GroupNorm(128, "), ("sigmoid", "Sigmoid")]
)
def test_variant__changes_the_layer(suffix, kind):
    assert kind in repr(build_network(f"convnet3_{suffix}", CIFAR10, 10))


def test_reset__draws_torchs_default_initialisation_from_the_generator():
    net = build_network("convnet3", CIFAR10, 10, torch.Generator().manual_seed(3))
    for module in (net.blocks[1][0], net.classifier):
        bound = 1 / math.sqrt(module.weight[0].numel())
        weight = module.weight.detach()
        assert weight.abs().max() <= bound and module.bias.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)  # of a uniform distribution
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(128, 128, 3)  # torch's own, to compare the spread
    assert net.blocks[1][0].weight.std().item() == pytest.approx(plain.weight.std().item(), rel=0.02)


def test_reset__repeats_a_build_in_place():
    net = build_network("convnet3_bn", (3, 8, 8), 10, torch.Generator().manual_seed(1))
    net(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2)))
    weight = net.blocks[0][0].weight
    assert reset(net, torch.Generator().manual_seed(5)) is net
    assert net.blocks[0][0].weight is weight
    fresh = build_network("convnet3_bn", (3, 8, 8), 10, torch.Generator().manual_seed(5))
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(net.state_dict()[name], tensor), name


def test_build_network__leaves_the_global_generator_alone(generator):
    before = torch.get_rng_state()
    build_network("convnet3", CIFAR10, 10, generator)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("convnt3", CIFAR10, "unknown network 'convnt3'; did you mean 'convnet3'?"),
        ("convnet3_bm", CIFAR10, "unknown network variant 'bm'"),
        ("convnet3_w0", CIFAR10, "width must be >= 1"),
        ("convnet3_gn_w30", CIFAR10, "divisible by 4"),
        ("convnet6", CIFAR10, "too small for 6 poolings. Use at most convnet5"),
        ("convnet4", (1, 8, 8), "Use at most convnet3"),
        ("convnet3", (3, 0, 32), "in_shape must be"),
    ],
)
def test_build_network__refuses(name, shape, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        build_network(name, shape, 10)


def test_build_network__small_enough_for_the_depth_it_names():
    for name in ("convnet5", "convnet3"):
        shape = CIFAR10 if name == "convnet5" else (1, 8, 8)
        assert build_network(name, shape, 10).features(torch.zeros(2, *shape)).shape == (2, 128)


def test_forward__refuses_wrong_channels():
    with pytest.raises(InputError, match=r"shape \(3, 32, 32\), got \(1, 32, 32\)"):
        build_network("convnet3", CIFAR10, 10)(torch.zeros(2, 1, 32, 32))


def test_networks__every_depth_builds():
    for name in (name for name in NETWORKS if name.startswith("convnet")):
        assert build_network(name, (3, 64, 64), 3)(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize(("shape", "sides"), [(CIFAR10, (32, 16, 8)), (MNIST, (32, 16, 8))])
def test_activations__come_before_each_pooling(generator, shape, sides):
    net = build_network("convnet3_w16", shape, 10, generator)
    x = torch.randn(2, *shape, generator=generator)
    outputs, features = net.activations(x)
    assert [tuple(output.shape) for output in outputs] == [(2, 16, side, side) for side in sides]
    assert all((output >= 0).all() and (output == 0).any() for output in outputs), "of ReLUs"
    assert torch.equal(features, net.features(x))
    assert torch.equal(net.blocks[1][3](outputs[1]), net.blocks[:2](x))
