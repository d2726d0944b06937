"""EAD against a second, plain implementation: one inner product at a time, one graph for the whole loss."""

from statistics import fmean

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from core_dd import evaluate, load_data
from core_dd.errors import InputError
from core_dd.rng import stream
from matching_dd import coreset, distill
from matching_dd.experts import ExpertsConfig, record
from matching_dd.methods.ead import EAD, EADConfig

PLAIN = {"network": "convnet1_w8", "bf16": False, "compile": False}


def plain_iteration(ead: EAD, step: int, images: Tensor, logits: Tensor, factor: float) -> Tensor:
    """The loss (EAD, eq. 7), differentiable in images (K, ipc, C, H, W) and logits (K, ipc, K)."""
    config, generator, total = ead.config, stream(ead.config.seed, "expert", step), torch.zeros(())
    expert = int(torch.randint(3, (), generator=generator))
    real, probe = (ead.real.draw(turn, range(10)) for turn in (2 * step, 2 * step + 1))
    hard = torch.eye(10)[:, None]
    batches = {
        "P": (probe[:, : config.batch_probe], hard.repeat(1, config.batch_probe, 1)),
        "D": (real, hard.repeat(1, config.batch_real, 1)),
        "S": (images, logits.softmax(2)),
    }
    for epoch in torch.randperm(config.max_epoch or 6, generator=generator)[: config.checkpoints].tolist():
        weights = {name: w.requires_grad_() for name, w in ead.experts.weights(expert, epoch).items()}
        gradients = {}
        for name, (x, y) in batches.items():
            scores = functional_call(ead.net, weights, (x.flatten(0, 1),)).log_softmax(1)
            loss = -(y.flatten(0, 1) * scores).sum(1).mean()
            gradients[name] = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        for p, d, s in zip(*(gradients[name] for name in "PDS"), strict=True):
            total = total + factor * (p.detach() * d.detach()).sum() - (p.detach() * s).sum()
    return total.abs()


@pytest.mark.parametrize(
    ("coefficient", "alpha"), [("one", 0.0), ("minibatch", (40 - 20) / 20), ("literal", (1442 - 20) / 20)]
)
@pytest.mark.parametrize(("memory_gib", "max_epoch"), [(None, None), (2e-4, 4)])
def test_step__equals_plain_iterations(digits, experts, coefficient, alpha, memory_gib, max_epoch):
    """Images, labels, momentum; sizes: 1442 real and 20 synthetic images, 40 real ones in a batch."""
    rates = {"lr_img": 0.1, "lr_label": 0.3, "coefficient": coefficient, "memory_gib": memory_gib}
    rates["max_epoch"] = max_epoch
    options = {"ipc": 2, "batch_real": 4, "batch_probe": 3, "checkpoints": 3, "experts": experts, "seed": 2}
    ours = EAD(EADConfig(**rates, **options, **PLAIN), digits)
    assert (len(ours.chunks) > 1) == (memory_gib is not None)
    images, logits = ours.synthetic.images.detach().clone(), ours.logits.detach().clone()
    speed = [torch.zeros_like(images), torch.zeros_like(logits)]
    for step in range(2):
        leaves = [images.requires_grad_(), logits.requires_grad_()]
        loss = plain_iteration(ours, step, *leaves, 1 - alpha)
        gradients = torch.autograd.grad(loss, leaves)
        assert all(gradient.abs().max() > 1e-4 for gradient in gradients)
        speed = [0.5 * v + g for v, g in zip(speed, gradients, strict=True)]
        images, logits = images.detach() - 0.1 * speed[0], logits.detach() - 0.3 * speed[1]
        torch.testing.assert_close(ours.step(step), loss.detach(), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(ours.synthetic.images.detach(), images, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(ours.logits.detach(), logits, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(ours.synthetic.labels, logits.softmax(2).flatten(0, 1), rtol=1e-3, atol=1e-4)


def test_step__of_batch_norm_keeps_the_real_batch_whole(digits):
    """Its statistics are of the batch, so a memory limit must not cut it; the classes do not go in parts then."""
    options = {"network": "convnet1_bn_w8", "epochs": 3, "lr": 0.05, "batch_size": 64, "tracker": "none"}
    experts = str(record(ExpertsConfig(experts=1, out="experts", device="cpu", **options), digits))
    options = {"ipc": 1, "batch_real": 4, "checkpoints": 2, "experts": experts, **PLAIN, "network": "convnet1_bn_w8"}
    whole, limited = (EAD(EADConfig(memory_gib=memory, **options), digits) for memory in (None, 3e-4))
    assert limited.most_at_once < 40 <= whole.most_at_once
    for step in range(2):
        torch.testing.assert_close(limited.step(step), whole.step(step))


@pytest.mark.parametrize(("coefficient", "zero"), [("one", True), ("minibatch", True), ("literal", False)])
def test_step__zero_when_synthetic_is_real(coefficient, zero):
    """A synthetic batch equal to the real one, with its labels: only a coefficient of 1 sees no effect."""
    data = load_data("digits", limit_per_class=4)
    options = {"network": "convnet1_w8", "epochs": 3, "lr": 0.05, "batch_size": 8, "tracker": "none", "device": "cpu"}
    experts = str(record(ExpertsConfig(experts=2, out="experts", **options), data))
    options = {"ipc": 2, "batch_real": 2, "checkpoints": 3, "experts": experts, "coefficient": coefficient}
    ead = EAD(EADConfig(**options, **PLAIN), data)
    with torch.no_grad():
        ead.synthetic.images.copy_(ead.real.draw(0, range(10)))
        ead.logits.copy_(100 * torch.eye(10)[:, None].expand(10, 2, 10))
    assert (ead.step(0) < 1e-4) == zero


def test_labels__start_as_probabilities_of_a_trained_expert(digits, experts):
    ead = EAD(EADConfig(ipc=2, factor=2, init="mix", experts=experts, **PLAIN), digits)
    ead.net.load_state_dict(ead.experts.weights(0, 6))
    logits = torch.stack([ead.net(ead.synthetic.decoded(range(10))[:, i]) for i in range(8)]).detach()
    means = torch.stack([logits[i::2].mean(0) for i in range(2)], 1)  # tile by tile: images 0, 1, 0, 1, ...
    torch.testing.assert_close(ead.synthetic.labels, means.softmax(2).flatten(0, 1))
    torch.testing.assert_close(ead.synthetic.labels.sum(1), torch.ones(20))


def test_labels__start_where_images_show_different_numbers_of_tiles(digits, experts):
    """An image's label is the mean over whatever of it is seen: the first is cut in four, the second whole."""
    bound = {"factor": 2, "decode": "bound", "max_syn": 6}
    ead = EAD(EADConfig(ipc=2, init="mix", experts=experts, **bound, **PLAIN), digits)
    ead.net.load_state_dict(ead.experts.weights(0, 6))
    seen = ead.synthetic.decoded(range(10)).detach()
    for k in range(10):
        logits = ead.net(seen[k])
        expected = torch.stack([logits[:4].mean(0), logits[4]])
        torch.testing.assert_close(ead.logits[k].detach(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("labels", ["soft", "hard"])
def test_step__with_given_labels_learns_the_images_alone(digits, experts, labels):
    """The plain iteration with the first expert's probabilities, or the classes, as constants."""
    options = {"ipc": 2, "batch_real": 4, "batch_probe": 3, "checkpoints": 3, "experts": experts, "seed": 2}
    ours = EAD(EADConfig(labels=labels, **options, **PLAIN), digits)
    logits = ours.logits.detach().clone() if labels == "soft" else 1e4 * torch.eye(10)[:, None].expand(10, 2, 10)
    images = ours.synthetic.images.detach().clone().requires_grad_()
    loss = plain_iteration(ours, 0, images, logits, 1.0)
    (gradient,) = torch.autograd.grad(loss, images)
    torch.testing.assert_close(ours.step(0), loss.detach(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours.synthetic.images.detach(), images.detach() - 0.1 * gradient, rtol=1e-3, atol=1e-4)
    kept = ours.synthetic.to_distilled({}).labels
    expected = logits.softmax(2).flatten(0, 1) if labels == "soft" else torch.arange(10).repeat_interleave(2)
    torch.testing.assert_close(kept, expected)


def test_soft_labels__follow_the_images_that_a_step_takes(digits, experts):
    ead = EAD(EADConfig(ipc=3, max_syn=5, factor=2, init="mix", experts=experts, **PLAIN), digits)
    with torch.no_grad():
        ead.synthetic.images.copy_(torch.arange(30.0).reshape(10, 3, 1, 1, 1).expand(-1, -1, 1, 8, 8) / 30)
        ead.logits.copy_(torch.randn(10, 3, 10, generator=torch.Generator().manual_seed(0)))
    taken, labels = ead.draw(4, range(10))[1], ead.soft_labels(4)
    pixels = ead.synthetic.preprocess.inverse(ead.synthetic.images.flatten(0, 1)).detach()
    assert taken.shape[:2] == labels.shape[:2] == (10, 5)
    stored = ead.synthetic.preprocess.forward(pixels)[:, 0, 4, 4]
    for image, label in zip(taken.flatten(0, 1), labels.flatten(0, 1), strict=True):
        index = int((stored - image[0, 4, 4]).abs().argmin())
        torch.testing.assert_close(label, ead.logits.flatten(0, 1)[index].softmax(0))


def test_distill__lowers_its_objective(digits, experts):
    """The effect on probes and batches that no iteration saw."""
    options = {"ipc": 2, "checkpoints": 3, "batch_real": 16, "lr_img": 0.3, "lr_label": 0.3, "experts": experts}
    ead = EAD(EADConfig(**options, **PLAIN), digits)

    def objective() -> float:
        state = [ead.synthetic.images.detach(), ead.logits.detach()]
        with torch.enable_grad():
            return sum(plain_iteration(ead, step, *state, 1.0).item() for step in range(1000, 1006))

    before = objective()
    for step in range(30):
        ead.step(step)
    assert objective() < 0.8 * before


@pytest.mark.slow
def test_distill__beats_random_selection_and_its_own_start(digits, experts):
    """Paired: the same seed draws the random set, the starting point (these images, with an expert's labels), and the
    classifiers. On the mean over seeds other than those (0 and 1) for which the learning rates were chosen: where an
    expert mislabels the start, the set may stay below the random one."""
    options = {"checkpoints": 3, "batch_real": 16, "lr_img": 0.1, "lr_label": 0.1, "experts": experts, **PLAIN}
    above_random, above_start = [], []
    for seed in range(2, 5):
        ead = EAD(EADConfig(ipc=1, seed=seed, **options), digits)
        start = ead.synthetic.to_distilled({})
        for step in range(60):
            ead.step(step)
        sets = ead.synthetic.to_distilled({}), start, coreset("random", digits, 1, seed=seed)
        end, start, random = (evaluate(dset, digits, "quick", "convnet1_w8", runs=2, seed=seed).mean for dset in sets)
        above_random.append(end - random)
        above_start.append(end - start)
    assert fmean(above_random) > 0.02, above_random  # measured: 0.053, five of six above
    assert fmean(above_start) > 0.01, above_start  # measured: 0.028, all above


def test_distill__writes_soft_labels_that_train(digits, experts):
    options = {"checkpoints": 2, "batch_real": 4, "experts": experts, "tracker": "none", "compile": False}
    dset = distill("ead", digits, 1, iterations=2, network="convnet1_w8", **options)
    assert F.cross_entropy(dset.labels.log(), torch.arange(10)) < 1
    torch.testing.assert_close(dset.labels.sum(1), torch.ones(10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoints": 0}, "checkpoints must be >= 1, got 0"),
        ({"checkpoints": 7}, "at most the 6 epochs of the experts in .*; got 7 and None"),
        ({"checkpoints": 2, "max_epoch": 1}, "checkpoints must be at most max_epoch, .*; got 2 and 1"),
        ({"checkpoints": 2, "max_epoch": 7}, "at most the 6 epochs of the experts in .*; got 2 and 7"),
        ({"max_epoch": 0}, "max_epoch must be >= 1, got 0"),
        ({"lr_label": 0.0}, "lr_label must be > 0, got 0"),
        ({"batch_probe": 30}, "batch_probe must be from 1 to batch_real 25, got 30"),
        ({"coefficient": "won"}, "unknown coefficient 'won'; did you mean 'one'"),
        ({"per_class": True}, "leave out per_class"),
        ({"experts": "nowhere"}, "no experts at nowhere"),
        ({"network": "convnet2_w8"}, "network convnet1_w8, but the distillation has convnet2_w8"),
    ],
)
def test_distill__refuses(digits, experts, options, message):
    common = {"network": "convnet1_w8", "experts": experts, "tracker": "none"}
    with pytest.raises(InputError, match=message):
        distill("ead", digits, 1, iterations=1, **common | options)
