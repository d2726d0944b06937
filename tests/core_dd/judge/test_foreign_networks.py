"""Networks of other code: by dotted name, from Python, and timm's; what they show, and what is refused."""

import copy

import pytest
import torch
from torch import nn

from core_dd import DistilledSet, evaluate
from core_dd.errors import InputError
from core_dd.judge.networks import build_network, name_of, reset
from core_dd.sets.distilled import new_meta
from matching_dd import coreset

DIGIT = (1, 8, 8)


class Own(nn.Module):
    """A user's classifier, which shows its features."""

    def __init__(self, in_shape=DIGIT, num_classes=10):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(in_shape[0] * in_shape[1] * in_shape[2], 32), nn.ReLU())
        self.head = nn.Linear(32, num_classes)

    def features(self, x):
        return self.body(x)

    def forward(self, x):
        return self.head(self.features(x))


def bare(in_shape, num_classes):
    """A user's classifier that shows nothing."""
    return nn.Sequential(nn.Flatten(), nn.Linear(in_shape[0] * in_shape[1] * in_shape[2], num_classes))


class Scaled(nn.Module):
    """Holds a number that nobody says how to draw."""

    def __init__(self):
        super().__init__()
        self.scale, self.layer = nn.Parameter(torch.ones(1)), nn.Linear(64, 10)

    def forward(self, x):
        return self.scale * self.layer(x.flatten(1))


def failing(in_shape, num_classes):
    raise KeyError("no such layer")


def nothing(in_shape, num_classes):
    return None


def twins(in_shape, num_classes):
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, num_classes)

        def forward(self, x):
            return (self.layer(x.flatten(1)),) * 2

    return Pair()


NUMBER = 5
HERE = Own.__module__
WAYS = [f"{HERE}:Own", Own, Own()]


@pytest.fixture(autouse=True)
def importable(monkeypatch, request):
    """The tests' own module, by its name."""
    monkeypatch.syspath_prepend(request.path.parent)


@pytest.fixture(scope="module")
def few(digits):
    """Ten real images of each digit as a set."""
    index = torch.cat([members[:10] for members in digits.class_indices()])
    meta = new_meta(digits, method="random", ipc=10, seed=0)
    return DistilledSet(digits.train_images[index], digits.train_labels[index], meta)


@pytest.mark.parametrize("way", WAYS, ids=["dotted", "class", "instance"])
def test_build_network__of_other_code_is_drawn_by_the_generator_alone(way, generator):
    before = torch.get_rng_state()
    seeded = [build_network(way, DIGIT, 10, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before), "the global generator is as it was"
    first, again, other = (net.state_dict() for net in seeded)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first)
    weight = seeded[2].net.head.weight
    reset(seeded[2], torch.Generator().manual_seed(1))
    assert seeded[2].net.head.weight is weight
    assert all(torch.equal(first[key], tensor) for key, tensor in seeded[2].state_dict().items())
    x = torch.randn(3, *DIGIT, generator=generator)
    torch.testing.assert_close(seeded[0](x), seeded[0].net.head(seeded[0].features(x)))


def test_build_network__of_an_instance_leaves_it_as_it_is():
    example = Own()
    kept = copy.deepcopy(example.state_dict())
    net = build_network(example, DIGIT, 10, torch.Generator().manual_seed(0))
    assert net.net is not example
    assert all(torch.equal(kept[key], tensor) for key, tensor in example.state_dict().items())


def test_features__of_a_copy_are_the_copys_own(generator):
    net = build_network(Own, DIGIT, 10, generator)
    other, x = copy.deepcopy(net), torch.randn(2, *DIGIT, generator=generator)
    reset(other, generator)
    torch.testing.assert_close(other.features(x), other.net.features(x))
    assert not torch.allclose(other.features(x), net.features(x))


@pytest.mark.parametrize("way", WAYS, ids=["dotted", "class", "instance"])
def test_evaluate__learns_with_a_users_network(way, few, digits):
    scores = evaluate(few, digits, "quick", way, runs=2, steps=30)
    assert scores.mean > 0.5
    assert scores.record["network"] == f"{HERE}:Own" and scores.record["parameters"] == 64 * 32 + 32 + 320 + 10
    assert scores.accuracies == evaluate(few, digits, "quick", way, runs=2, steps=30).accuracies


def test_evaluate__needs_features_only_where_they_are_measured(few, digits):
    assert evaluate(few, digits, "quick", bare, runs=1, steps=2).record["network"] == f"{HERE}:bare"
    with pytest.raises(InputError, match=f"needs a network that shows its features: {HERE}:bare has no features"):
        evaluate(few, digits, "quick", bare, runs=1, steps=2, with_fidelity=True)
    with pytest.raises(InputError, match="has no features"):
        coreset("herding", digits, 1, network=bare)


def test_evaluate__trains_only_what_is_not_frozen(few, digits):
    def frozen(in_shape, num_classes):
        net = Own(in_shape, num_classes)
        net.body.requires_grad_(False)
        return net

    scores = evaluate(few, digits, "quick", frozen, runs=1, steps=20)
    assert scores.record["parameters"] == 330


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("no_such_package:Net", "cannot find network no_such_package:Net .*PYTHONPATH"),
        (f"{HERE}:Missing", f"cannot find network {HERE}:Missing"),
        (f"{HERE}:", "is no name of a network"),
        (".relative:Net", "is no name of a network"),
        (f"{HERE}:NUMBER", "is no function of"),
        (f"{HERE}:failing", r"called with \(\(1, 8, 8\), 10\), failed \(KeyError: 'no such layer'\)"),
        (f"{HERE}:nothing", "gave a NoneType, expected an nn.Module"),
        (f"{HERE}:twins", r"makes tuple of 2 images, expected logits of shape \(2, 10\)"),
        (Own((3, 8, 8)), r"cannot take images of shape \(1, 8, 8\)"),
        (Own(num_classes=7), r"makes \(2, 7\) of 2 images, expected logits of shape \(2, 10\)"),
        (Scaled(), "the weights of .*Scaled cannot be drawn anew: Scaled has scale and no reset_parameters"),
        ("timm:resnt18", "timm has no model 'resnt18'; did you mean 'resnet18'"),
    ],
    ids=str,
)
def test_build_network__refuses(network, message):
    with pytest.raises(InputError, match=message):
        build_network(network, DIGIT, 10)


def test_name_of__says_where_it_is_defined():
    assert [name_of(way) for way in ("convnet3", *WAYS)] == ["convnet3", *[f"{HERE}:Own"] * 3]


TIMM = [
    ("resnet18", (1, 32, 32), 512, "its first convolution is 3x3 of stride 1 and its max pooling is left out"),
    ("resnet10t", (3, 64, 64), 512, "its first convolution has stride 1 and its max pooling is left out"),
    ("mobilenetv3_small_050", (3, 32, 32), 1024, "its first convolution has stride 1"),
    ("convnext_atto", (3, 32, 32), 320, "its first convolution is 3x3 of stride 1"),
    ("vit_tiny_patch16_224", (3, 32, 32), 192, "in patches of 4"),
    ("vit_tiny_patch16_224", (1, 28, 28), 192, "in patches of 4"),
]


@pytest.mark.parametrize(("name", "shape", "width", "said"), TIMM, ids=str)
def test_timm__adapts_a_model_for_224_pixels_to_small_ones_and_says_so(name, shape, width, said, generator, capsys):
    from core_dd.judge.networks import timm_models

    timm_models.say.cache_clear()
    net = build_network(f"timm:{name}", shape, 7, generator).eval()
    assert said in capsys.readouterr().err
    x = torch.randn(2, *shape, generator=generator)
    with torch.no_grad():
        assert net(x).shape == (2, 7) and net.features(x).shape == (2, width)
    assert not hasattr(net, "activations")
    build_network(f"timm:{name}", shape, 7, generator)
    assert capsys.readouterr().err == "", "said once"


def test_timm__adapted_stem_keeps_the_size_of_the_map(generator):
    net = build_network("timm:resnet18", (3, 32, 32), 10, generator).net.net
    x = torch.zeros(1, 3, 32, 32)
    assert net.eval().forward_features(x).shape == (1, 512, 4, 4)


def test_timm__takes_its_own_size_unchanged(capsys, generator):
    net = build_network("timm:resnet10t", (3, 96, 96), 10, generator)
    assert capsys.readouterr().err == ""
    assert net.eval()(torch.zeros(1, 3, 96, 96)).shape == (1, 10)


def test_timm__same_seed_same_weights():
    first, again, other = (
        build_network("timm:resnet10t", (3, 32, 32), 3, torch.Generator().manual_seed(seed)).state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
