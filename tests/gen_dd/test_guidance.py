"""Guides against plain formulas, and what they promise of the sampler."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from core_dd.data.images import load_data
from core_dd.errors import InputError
from core_dd.records import read as read_json
from core_dd.rng import stream
from core_dd.sets.distilled import DistilledSet
from gen_dd.guidance import GUIDES, MGD3, ClassifierGuide, CoDA, Repulsion, make_guide
from gen_dd.options import SampleConfig
from gen_dd.sample import run, sample
from gen_dd.sampler import Sampler
from gen_dd.solvers import SOLVERS, guided
from gen_dd.uvit import CONSISTENCY
from gen_dd.weights import save_model

STEPS = 4


@pytest.fixture(scope="module")
def data():
    return load_data("digits", limit_per_class=20)


@pytest.fixture(scope="module")
def model(small_uvit):
    return small_uvit


@pytest.fixture(scope="module")
def prepared(data, model):
    """Every guide, prepared with its defaults but three slots and a small classifier."""
    small = {"classifier": {"network": "convnet1_w8"}}
    guides = {name: make_guide(name, slots=3, **small.get(name, {})) for name in GUIDES}
    for guide in guides.values():
        guide.prepare(data, model, stream(0, "guide"))
    return guides


@pytest.fixture
def batch(generator):
    """x0, labels and indices of two groups of three and one lone image."""
    x0 = torch.randn(7, 1, 8, 8, generator=generator)
    return x0, torch.tensor([2, 2, 2, 5, 5, 5, 2]), torch.tensor([0, 1, 2, 3, 4, 5, 3])


def sigma_over_alpha(t):
    log_alpha = -(20 - 0.1) * t**2 / 4 - 0.1 * t / 2
    return math.sqrt(1 - math.exp(2 * log_alpha)) / math.exp(log_alpha)


def test_mgd3__moves_towards_the_slots_real_image(prepared, batch, data):
    x0, labels, index = batch
    guide = prepared["mgd3"]
    moved = guide.correct_x0(x0, 0.7, labels, index)
    for i in range(7):
        mode = guide.modes[labels[i], index[i] % 3]
        assert torch.allclose(moved[i], 0.9 * x0[i] + 0.1 * mode, atol=1e-6)
        real = data.train_images[data.train_labels == labels[i]].float() / 127.5 - 1
        assert (real == mode).flatten(1).all(1).any()
    assert len({mode.numpy().tobytes() for mode in guide.modes[2]}) == 3


@pytest.mark.parametrize("name", GUIDES)
def test_guide__leaves_x0_alone_once_stopped(prepared, batch, name):
    guide = prepared[name]
    assert guide.correct_x0(batch[0], guide.until, *batch[1:]) is batch[0]
    assert not torch.equal(guide.correct_x0(batch[0], guide.until + 0.05, *batch[1:]), batch[0])


@pytest.mark.parametrize(("t", "weight"), [(0.3, 0.05 * sigma_over_alpha(0.3)), (0.95, 1.0)])
def test_coda__weight_is_gamma_sigma_over_alpha_up_to_one(prepared, batch, t, weight):
    x0, labels, index = batch
    guide = prepared["coda"]
    expected = x0 + weight * (guide.modes[labels, index % 3] - x0)
    assert torch.allclose(guide.correct_x0(x0, t, labels, index), expected, atol=1e-5)


def test_coda__in_terms_of_noise_is_the_papers_formula(prepared, generator):
    """Delta eps = -gamma (r - x0) on the labelled half, which classifier-free guidance then multiplies by 1 + s."""
    guide, t, s = prepared["coda"], 0.4, 0.5
    x, labels, index = torch.randn(2, 1, 8, 8, generator=generator), torch.tensor([1, 4]), torch.tensor([0, 2])
    cond, null = torch.randn(2, 2, 1, 8, 8, generator=generator)
    model = lambda x, timestep, labels: torch.cat([cond, null])  # noqa: E731
    noise = guided(model, labels, s, 10, guide=guide, index=index)(x, torch.tensor(999 * t))
    ratio = sigma_over_alpha(t)
    alpha = 1 / math.sqrt(1 + ratio**2)
    x0 = (x - ratio * alpha * cond) / alpha
    moved = cond - 0.05 * (guide.modes[labels, index] - x0)
    assert torch.allclose(noise, moved + s * (moved - null), atol=1e-5)


def test_repulsion__is_the_gradient_of_the_log_kernel_sum(batch):
    x0, labels, index = batch
    moved = Repulsion(slots=3).correct_x0(x0, 0.8, labels, index)
    for group in ([0, 1, 2], [3, 4, 5]):
        for i in group:
            others = x0[[j for j in group if j != i]]
            leaf = x0[i].clone().requires_grad_()
            h = (others - x0[i]).square().sum((1, 2, 3)).mean()
            energy = h / 2 * torch.logsumexp(-(others - leaf).square().sum((1, 2, 3)) / h, 0)
            expected = x0[i] - 0.1 * torch.autograd.grad(energy, leaf)[0]
            assert torch.allclose(moved[i], expected, atol=1e-5)
    assert torch.equal(moved[6], x0[6])  # nobody else is in its group


def test_repulsion__spreads_a_group(batch):
    x0, labels, index = batch
    moved = Repulsion(slots=3, scale=0.5).correct_x0(x0, 0.8, labels, index)
    assert torch.pdist(moved[:3].flatten(1)).min() > torch.pdist(x0[:3].flatten(1)).min()


def test_classifier__moves_up_the_log_probability(prepared, batch):
    x0, labels, index = batch
    guide, t = prepared["classifier"], 0.6
    moved = guide.correct_x0(x0, t, labels, index)
    variance = 1 - math.exp(-19.9 * t**2 / 2 - 0.1 * t)
    for i in range(7):
        leaf = x0[i : i + 1].clamp(-1, 1).requires_grad_()
        logits = guide.classifier(guide.preprocess.forward((leaf + 1) / 2))
        score = F.log_softmax(logits, 1)[0, labels[i]]
        expected = x0[i] + variance * torch.autograd.grad(score, leaf)[0][0]
        assert torch.allclose(moved[i], expected, atol=1e-4)


def test_prepare__draws_from_its_generator_alone(data, model):
    modes = []
    for seed in (0, 0):
        guide = MGD3(slots=4)
        guide.prepare(data, model, stream(seed, "guide"))
        modes.append(guide.modes)
    assert torch.equal(*modes)


@pytest.mark.parametrize("guide", [MGD3(slots=21), CoDA(slots=21)])
def test_prepare__more_slots_than_images(data, model, guide):
    with pytest.raises(InputError, match=r"guide_slots is 21, but class 0 \('0'\) has 20 images"):
        guide.prepare(data, model, stream(0, "guide"))


@pytest.mark.parametrize("guide", [MGD3(), CoDA(), ClassifierGuide()])
def test_prepare__without_the_data_it_wants(model, guide):
    with pytest.raises(InputError, match="wants the real data"):
        guide.prepare(None, model, stream(0, "guide"))


@pytest.mark.parametrize("solver", sorted(SOLVERS.keys() - {CONSISTENCY}))
@pytest.mark.parametrize("cfg_scale", [0.0, 0.5])
def test_sampler__a_guide_of_weight_zero_changes_nothing(model, prepared, solver, cfg_scale):
    modes = prepared["mgd3"].modes
    still = MGD3(slots=3, scale=0.0)
    still.modes = modes
    options = {"steps": STEPS, "solver": solver, "cfg_scale": cfg_scale, "bf16": False}
    assert torch.equal(
        Sampler(model, guide=still, **options).draw(range(20)), Sampler(model, **options).draw(range(20))
    )


def test_sampler__full_weight_ends_at_the_modes(model, prepared):
    """With x0 = m at every step, DPM-Solver++ 2M ends at m, but for the noise of t = 1e-3."""
    pull = MGD3(slots=3, scale=1.0, until=0.0)
    pull.modes = prepared["mgd3"].modes
    images = Sampler(model, steps=10, guide=pull, bf16=False).draw(range(30))
    expected = torch.stack([pull.modes[n % 10, n // 10] for n in range(30)])
    assert (images.float() / 127.5 - 1 - expected).abs().max() < 0.1


@pytest.mark.parametrize("name", GUIDES)
def test_sampler__batch_size_changes_nothing(model, prepared, name):
    drawn = [
        sample(model, num_per_class=6, steps=STEPS, batch=batch, guide=prepared[name], bf16=False)
        for batch in (3, 7, 60)
    ]
    for other in drawn[1:]:
        assert torch.equal(other.labels, drawn[0].labels)
        assert (other.images.int() - drawn[0].images.int()).abs().max() <= 1  # one level: rounding at a boundary
    plain = sample(model, num_per_class=6, steps=STEPS, bf16=False)
    assert not torch.equal(plain.images[plain.labels == 0], drawn[0].images[drawn[0].labels == 0])


def test_places__groups_stand_together():
    sampler = SimpleNamespace(group=3, classes=2)
    labels, index = Sampler.places(sampler, range(12))
    assert labels.tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert index.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]


def test_guided__interval_of_classifier_free_guidance(model, generator):
    x, labels = torch.randn(3, 1, 8, 8, generator=generator), torch.tensor([1, 5, 9])
    noise_of = guided(model, labels, 0.7, 10, interval=(0.25, 0.5))
    with torch.inference_mode():
        for t, inside in [(0.2, False), (0.3, True), (0.45, True), (0.6, False)]:
            timestep = torch.tensor(999 * t)
            reference = guided(model, labels, 0.7 if inside else 0.0, 10)(x, timestep)
            assert torch.equal(noise_of(x, timestep), reference)


def test_sampler__budget_holds_with_groups(model):
    dset = sample(model, budget_s=2.0, steps=STEPS, batch=40, guide=Repulsion(slots=8))
    counts = torch.bincount(dset.labels, minlength=10)
    assert len(dset) % 8 == 0 and counts.max() - counts.min() in (0, 8)


def test_sampler__number_must_be_whole_groups(model):
    with pytest.raises(InputError, match="num_per_class 7 is not a multiple of the groups of 5"):
        sample(model, num_per_class=7, steps=STEPS, guide=Repulsion(slots=5))
    with pytest.raises(InputError, match="batch 4 is smaller than a group of 5"):
        Sampler(model, batch=4, guide=Repulsion(slots=5))


@pytest.fixture(scope="module")
def folder(model, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    card = {
        "data": "digits",
        "fingerprint": data.fingerprint,
        "class_names": list("0123456789"),
        "train": {"data": "digits", "limit_per_class": 20, "label_dropout": 0.0},
    }
    save_model(model, folder / "model", card)
    return folder


def options(folder, out, **more):
    return SampleConfig(**{"model": str(folder), "out": str(out), "steps": STEPS, "device": "cpu"} | more)


def test_command__guide_is_recorded_and_kept_on_resume(folder, tmp_path, model, prepared):
    guide = {"guide": "mgd3", "guide_slots": 3, "bf16": False}
    run(options(folder, tmp_path / "out", num_per_class=2, **guide))
    index = read_json(tmp_path / "out" / "index.json")
    assert index["identity"]["guide"] == "mgd3" and index["meta"]["config"]["guide_slots"] == 3
    for other in ({}, {"guide": "repulsion", "guide_slots": 3}, guide | {"guide_scale": 0.2}):
        with pytest.raises(InputError, match="was drawn with guide"):
            run(options(folder, tmp_path / "out", num_per_class=3, resume=True, **other))
    run(options(folder, tmp_path / "out", num_per_class=3, resume=True, **guide))
    whole = sample(model, num_per_class=3, steps=STEPS, guide=prepared["mgd3"], bf16=False)
    assert (DistilledSet.load(tmp_path / "out").images.int() - whole.images.int()).abs().max() <= 1


def test_command__refuses_what_does_not_fit(folder, tmp_path):
    with pytest.raises(InputError, match="trained with label_dropout 0"):
        run(options(folder, tmp_path / "out", num_per_class=1, cfg_scale=0.4))
    with pytest.raises(InputError, match=r"was trained on digits, and .* is other data"):
        from makers import write_idx

        images, labels = torch.zeros(20, 8, 8).byte().numpy(), (torch.arange(20) % 10).byte().numpy()
        write_idx(tmp_path / "set", (images, labels), (images, labels))
        run(options(folder, tmp_path / "out", num_per_class=1, guide="mgd3", guide_data=f"idx:{tmp_path / 'set'}"))
    assert not (tmp_path / "out").exists()
