"""IDM against a second, plain implementation: one class, one network, one step at a time."""

import pytest
import torch
import torch.nn.functional as F
from plain import plain_decode, plain_features, plain_logits
from torch import Tensor

from core_dd.errors import InputError
from core_dd.judge.augment import DSAugment
from core_dd.judge.networks import build_network
from core_dd.rng import stream
from matching_dd.methods.idm import IDM, IDMConfig

SMALL = {"network": "convnet1_w8", "ipc": 1, "batch_real": 6, "batch_train": 16, "bf16": False, "compile": False}
SCHEDULE = {"queue": 4, "push_every": 2, "train_steps": 2, "accuracy_every": 3}


def plain_loss(net: torch.nn.Module, real: Tensor, syn: Tensor, label: int, weight: float) -> Tensor:
    """Of one class: real (B, C, H, W), syn (M, C, H, W) (Zhao et al. 2023)."""
    means = (sum(plain_features(net, image) for image in images) / len(images) for images in (real, syn))
    difference = next(means) - next(means)
    entropy = sum(-plain_logits(net, image).log_softmax(0)[label] for image in syn) / len(syn)
    return (difference**2).sum() + weight * entropy


class PlainTrainee:
    """A network, its momentum, and its training accuracy in percent since the last reset."""

    def __init__(self, digits, *names):
        self.net = build_network("convnet1_w8", digits.shape, 10, stream(6, "drawn network", *names))
        self.momentum = [torch.zeros_like(p) for p in self.net.parameters()]
        self.right = []

    def percent(self) -> float:
        return 100 * sum(self.right) / len(self.right) if self.right else 0.0

    def train(self, images: Tensor, labels: Tensor) -> None:
        logits = self.net(images)
        self.right += (logits.argmax(1) == labels).tolist()
        gradients = torch.autograd.grad(F.cross_entropy(logits, labels), list(self.net.parameters()))
        with torch.no_grad():
            for parameter, gradient, momentum in zip(self.net.parameters(), gradients, self.momentum, strict=True):
                momentum.mul_(0.9).add_(gradient + 5e-4 * parameter)
                parameter -= 0.01 * momentum


class Own(torch.nn.Module):
    """A user's network, which shows its features and has no layer called classifier."""

    def __init__(self, in_shape, num_classes):
        super().__init__()
        self.body, self.head = torch.nn.Flatten(), torch.nn.Linear(64, num_classes)

    def features(self, x):
        return self.body(x)

    def forward(self, x):
        return self.head(self.features(x))


def test_idm__refuses_a_network_without_a_classifier_layer(digits):
    with pytest.raises(InputError, match="idm needs a network with a classifier layer: not test_idm:Own"):
        IDM(IDMConfig(**SMALL | {"network": "test_idm:Own"}), digits)


@pytest.mark.parametrize("factor", [2, 1])
def test_step__equals_plain_iteration(digits, factor):
    """Six iterations, with and without tiles: the queue grows, drops its oldest and counts anew; each class has its own
    step of the images."""
    ours = IDM(IDMConfig(seed=6, factor=factor, **SMALL, **SCHEDULE), digits)
    images = ours.synthetic.images.detach().clone().requires_grad_()
    optimizer = torch.optim.SGD([images], lr=0.2, momentum=0.5)
    pixels = (digits.train_images / 255 - digits.mean[0]) / digits.std[0]
    queue, percents = [PlainTrainee(digits, "start", i) for i in range(3)], []
    for step in range(6):
        if step == 3:
            for trainee in queue:
                trainee.right = []
        if step % 2 == 0:
            queue = [*queue, PlainTrainee(digits, step)][-4:]
        chosen = queue[int(torch.randint(len(queue), (), generator=stream(6, "queue", step)))]
        percents.append(chosen.percent())
        total = torch.zeros(())
        for k, members in enumerate(digits.class_indices()):
            index = members[torch.randperm(len(members), generator=stream(6, "real", step, k))[:6]]
            decoded = plain_decode(images[k] * digits.std[0] + digits.mean[0], factor)
            syn = (decoded - digits.mean[0]) / digits.std[0]
            dsa = DSAugment("color_crop_cutout_scale_rotate")
            real, syn = dsa.siamese(pixels[index][None], syn[None], [stream(6, "augment", step, k)])
            loss = plain_loss(chosen.net, real[0], syn[0], k, 0.5 * percents[-1])
            optimizer.zero_grad()
            (images.grad,) = torch.autograd.grad(loss, images)
            optimizer.step()
            total = total + loss.detach()
        generator = stream(6, "trained", step)
        for i in torch.randperm(len(queue), generator=generator)[:2].tolist():
            for _ in range(2):
                batch = torch.randperm(len(pixels), generator=generator)[:16]
                queue[i].train(pixels[batch], digits.train_labels[batch])

        torch.testing.assert_close(ours.step(step), total, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(ours.synthetic.images.detach(), images.detach(), rtol=1e-3, atol=1e-3)
        assert [trainee.percent for trainee in ours.queue] == pytest.approx([trainee.percent() for trainee in queue])
    assert len(ours.queue) == 4 and max(percents) > 0


def test_loss__without_cross_entropy_is_zero_when_synthetic_is_real(digits, generator):
    idm = IDM(IDMConfig(ce_weight=0.0, **SMALL), digits)
    real = torch.randn(10, 4, *digits.shape, generator=generator)
    assert idm.loss(idm.draw_network(0), real, real.clone(), range(10)) < 1e-8


def test_loss__of_parts_of_the_classes_adds_up(digits, generator):
    idm = IDM(IDMConfig(**SMALL), digits)
    net = idm.draw_network(0)
    idm.percent = 50.0
    real, syn = (torch.randn(10, n, *digits.shape, generator=generator) for n in (4, 2))
    parts = [idm.loss(net, real[k : k + 5], syn[k : k + 5], range(k, k + 5)) for k in (0, 5)]
    torch.testing.assert_close(sum(parts), idm.loss(net, real, syn, range(10)))


def test_state__holds_the_queue(digits):
    """Weights, momentum and accuracies: the networks go on as if nothing had happened."""
    whole, first, second = (IDM(IDMConfig(seed=1, **SMALL, **SCHEDULE), digits) for _ in range(3))
    for step in range(5):
        whole.step(step)
    for step in range(3):
        first.step(step)
    second.load_state(first.state())
    for step in range(3, 5):
        second.step(step)
    assert torch.equal(second.synthetic.images, whole.synthetic.images)
    for ours, other in zip(second.queue, whole.queue, strict=True):
        assert ours.percent == other.percent
        assert all(map(torch.equal, ours.net.parameters(), other.net.parameters()))
