"""Training R classifiers at once: equal to one alone, to a plain loop, across step forms and precisions."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from core_dd.data.preprocess import Preprocess
from core_dd.errors import InputError
from core_dd.judge import teacher as teaching
from core_dd.judge import training
from core_dd.judge.augment import DSAugment, strategy_for
from core_dd.judge.networks import build_network
from core_dd.judge.protocols import DM, QUICK, RD3
from core_dd.judge.training import Training, draw_batches, draws, gradients_of, initialise, stacks, train
from core_dd.rng import stream
from core_dd.speed import autocast, bf16_pays, can_compile

CPU = torch.device("cpu")
SHORT = DM.shortened(epochs=2)


@pytest.fixture(scope="module")
def few(digits):
    """Four images of each digit and their labels."""
    index = torch.cat([members[:4] for members in digits.class_indices()])
    return digits.train_images[index], digits.train_labels[index]


def options(**changes):
    return {"protocol": SHORT, "network": "convnet3_w16", "runs": range(3), "seed": 1, "device": CPU, **changes}


def plain_training(data, images, labels, protocol, network, run, seed):
    """The published loop, written out for one classifier in fp32: an optimiser, passes, batches, a drop."""
    net = build_network(network, data.shape, data.num_classes, stream(seed, "network", run))
    images = (images / 255 - data.mean[:, None, None]) / data.std[:, None, None]
    lr, step = 0.01, 0
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    for epoch in range(protocol.epochs + 1):
        order = torch.randperm(len(images), generator=stream(seed, "order", run, epoch))
        for index in order.split(min(256, len(images))):
            x = DSAugment(strategy_for(data)).per_image(images[index][None], [stream(seed, "augment", run, step)])[0]
            loss = F.cross_entropy(net(x), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        if epoch == protocol.epochs // 2 + 1:
            lr *= 0.1
            optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    return net, loss.item()


@pytest.mark.parametrize("network", ["convnet3_w16", "convnet2_w16_bn"])
def test_train__equals_the_plain_loop_for_every_run(digits, few, network):
    protocol = DM.shortened(epochs=3)
    images, labels = (torch.cat([tensor] * 7) for tensor in few)  # 280 images: batches of 256 and 24
    ours = train(images, labels, digits, **options(protocol=protocol, network=network, runs=[0, 4], bf16=False))
    for r, run in enumerate([0, 4]):
        net, loss = plain_training(digits, images, labels, protocol, network, run, seed=1)
        for name, tensor in ours.network(r).state_dict().items():
            torch.testing.assert_close(tensor, net.state_dict()[name], atol=1e-5, rtol=1e-3)
        assert ours.curve_loss[r][-1] == pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize("network", ["convnet3_w16", "convnet2_w16_bn", "resnet10_w8", "vit_tiny_w16"])
@pytest.mark.parametrize("stacked", [False, True])
def test_train__one_run_alone_equals_the_same_run_among_others(digits, few, network, stacked):
    together = train(*few, digits, **options(network=network, stacked=stacked, bf16=False))
    alone = train(*few, digits, **options(network=network, stacked=stacked, bf16=False, runs=[2]))
    for name in together.params:
        torch.testing.assert_close(together.params[name][2], alone.params[name][0], atol=1e-5, rtol=1e-3)
        assert not torch.allclose(together.params[name][0], together.params[name][1]) or together.params[name].ndim < 3
    assert together.curve_loss[2] == pytest.approx(alone.curve_loss[0], abs=1e-4)


def test_train__same_seed_same_bits_other_seed_other(digits, few):
    first, second = (train(*few, digits, **options()) for _ in range(2))
    other = train(*few, digits, **options(seed=2))
    assert all(torch.equal(first.params[name], second.params[name]) for name in first.params)
    assert first.curve_loss != other.curve_loss


@pytest.mark.parametrize(
    "network",
    [
        "convnet3_w16",
        "convnet2_w16_bn",
        "convnet2_w16_ln_maxpool",
        "alexnet",
        "resnet10_w4",
        "resnet18_ap_w4_bn",
        "mlp",
    ],
)
def test_gradients_of__stacked_equals_one_by_one(digits, network, generator):
    x = torch.randn(3, 12, 1, 8, 8, generator=generator)
    y = torch.randint(10, (3, 12), generator=generator)
    results = []
    for stacked in (False, True):
        net, params, buffers = initialise(network, digits, range(3), 0, CPU)
        function = gradients_of(net, CPU, stacked=stacked, bf16=False, fast=False)
        results.append((*function(params, buffers, x, y), buffers))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("fast", [False, True])
def test_gradients_of__stacked_batch_normalisation_beside_bf16(digits, fast, generator, request):
    """The loss is that of fp32 to 2 %: bf16 keeps 8 bits."""
    if fast:
        if not bf16_pays("cpu"):
            pytest.skip("no bf16 units: the next test compiles the same")
        request.getfixturevalue("compiling")
    x, y = torch.randn(2, 12, 1, 8, 8, generator=generator), torch.randint(10, (2, 12), generator=generator)
    losses = []
    for bf16 in (True, False):
        net, params, buffers = initialise("convnet2_w8_bn", digits, range(2), 0, CPU)
        losses.append(gradients_of(net, CPU, stacked=True, bf16=bf16, fast=fast and bf16)(params, buffers, x, y)[1])
    torch.testing.assert_close(*losses, rtol=0.02, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "stacked"), [("convnet1_w8", False), ("convnet1_w8_bn", True)])
def test_gradients_of__compiled_equals_eager(digits, network, stacked, generator, compiling):
    """fp32 sums of this length, added in another order, stay within 1e-4 of the largest."""
    net, params, buffers = initialise(network, digits, range(2), 0, CPU)
    x, y = torch.randn(2, 12, 1, 8, 8, generator=generator), torch.randint(10, (2, 12), generator=generator)
    eager, fast = (gradients_of(net, CPU, stacked=stacked, bf16=False, fast=f) for f in (False, True))
    (grads, loss), (fast_grads, fast_loss) = eager(params, buffers, x, y), fast(params, buffers, x, y)
    torch.testing.assert_close(fast_loss, loss)
    for name, grad in grads.items():
        torch.testing.assert_close(fast_grads[name], grad, rtol=0, atol=1e-4 * grad.abs().max().item() + 1e-6)


@pytest.mark.skipif(not bf16_pays("cpu"), reason="this CPU has no bf16 units, so nothing runs in bf16")
def test_gradients_of__bf16_agrees_with_fp32(digits, generator):
    """Loss within 1 %, each layer's gradient within 5 % of its norm.

    bf16 keeps 8 bits, a relative error of 0.4 % per rounding; three layers forward and back make it a few percent of
    noise without bias. The gradient of a batch differs from that of another batch by far more (checked below), so
    training does not feel it; what it does to accuracies is checked in the next test.
    """
    net, params, buffers = initialise("convnet3", digits, range(1), 0, CPU)
    index = torch.randperm(len(digits.train_labels), generator=generator)[:512].reshape(2, 1, 256)
    x = (digits.train_images[index] / 255 - digits.mean) / digits.std
    y = digits.train_labels[index]
    fp32, bf16 = (gradients_of(net, CPU, stacked=False, bf16=mixed, fast=False) for mixed in (False, True))
    (exact, loss), (rounded, rounded_loss) = (f(params, buffers, x[0], y[0]) for f in (fp32, bf16))
    other_batch, _ = fp32(params, buffers, x[1], y[1])
    assert rounded_loss.item() == pytest.approx(loss.item(), rel=0.01)
    assert rounded_loss.item() != loss.item()
    for name, grad in exact.items():
        if "0.bias" in name:  # a convolution's bias before InstanceNorm has gradient zero, up to rounding
            continue
        assert (rounded[name] - grad).norm() <= 0.05 * grad.norm(), name
        assert (other_batch[name] - grad).norm() >= 0.2 * grad.norm(), name


@pytest.mark.skipif(not bf16_pays("cpu"), reason="this CPU has no bf16 units, so nothing runs in bf16")
def test_train__bf16_and_fp32_accuracies_agree_within_their_interval(digits):
    index = torch.cat([members[:10] for members in digits.class_indices()])
    means, halves = [], []
    for bf16 in (True, False):
        trained = train(
            digits.train_images[index],
            digits.train_labels[index],
            digits,
            **options(protocol=replace(QUICK, steps=40), network="convnet2_w32", runs=range(5), bf16=bf16),
        )
        accuracies = torch.tensor(trained.accuracies(digits.test_images, digits.test_labels))
        means.append(accuracies.mean().item())
        halves.append(2.776 * accuracies.std().item() / 5**0.5)  # Student's t, 4 degrees of freedom
    assert min(means) > 0.6
    assert abs(means[0] - means[1]) <= sum(halves)


def test_train__soft_labels_of_one_hot_equal_hard_ones(digits, few):
    images, labels = few
    hard = train(images, labels, digits, **options(bf16=False))
    soft = train(images, F.one_hot(labels, 10).float(), digits, **options(bf16=False))
    assert soft.curve_loss[0] == pytest.approx(hard.curve_loss[0], abs=1e-5)


def test_train__float_pixels_equal_bytes(digits, few):
    images, labels = few
    floats, raw = (train(pixels, labels, digits, **options(bf16=False)) for pixels in (images / 255, images))
    for name in floats.params:
        torch.testing.assert_close(floats.params[name], raw.params[name], atol=1e-5, rtol=1e-3)


def test_train__stops_on_a_loss_that_is_not_finite(digits, few):
    images, labels = few
    with pytest.raises(InputError, match="diverged"):
        train(images.float() * 1e30, labels, digits, **options())


def test_train__cutmix_is_each_runs_own(digits, few):
    protocol = replace(QUICK, steps=4, cutmix=1.0)
    among = train(*few, digits, **options(protocol=protocol, runs=[0, 1]))
    alone = train(*few, digits, **options(protocol=protocol, runs=[1]))
    assert among.curve_loss[1] == pytest.approx(alone.curve_loss[0], rel=1e-3)
    plain = train(*few, digits, **options(protocol=replace(QUICK, steps=4), runs=[1]))
    assert plain.curve_loss[0] != pytest.approx(alone.curve_loss[0], rel=1e-3)


def test_draw_batches__a_pass_visits_every_image_once_in_each_runs_own_order():
    plan = DM.plan(600, augmented=True)
    steps = [draw_batches(plan, 600, [0, 3], 0, step) for step in range(6)]
    assert [index.shape[1] for index in steps] == [256, 256, 88] * 2
    for number in range(2):
        order = torch.cat(steps[3 * number : 3 * number + 3], 1)
        assert torch.equal(order.sort(1).values, torch.arange(600).expand(2, -1))
        assert not torch.equal(order[0], order[1])
    assert not torch.equal(torch.cat(steps[:3], 1), torch.cat(steps[3:], 1))


def test_accuracies__equal_each_network_on_the_whole_test_set(digits, few, monkeypatch):
    trained = train(*few, digits, **options(protocol=replace(QUICK, steps=15), network="convnet2_w16_bn"))
    x, expected = trained.preprocess.forward(digits.test_images), []
    for r in range(3):
        with torch.no_grad(), autocast(CPU):
            right = trained.network(r)(x).argmax(1) == digits.test_labels
        expected.append(right.float().mean().item())
    assert min(expected) > 0.2 and len(set(expected)) > 1
    for chunk in (500, 100):  # 355 images: one forward, and four
        monkeypatch.setattr(training, "TEST_CHUNK", chunk)
        assert trained.accuracies(digits.test_images, digits.test_labels) == pytest.approx(expected, abs=1e-6)


def test_train__never_reads_the_test_images(digits, few):
    unread = replace(digits, test_images=torch.zeros(0), test_labels=torch.zeros(0))
    assert len(train(*few, unread, **options())) == 3


def test_training__compiles_only_long_trainings(digits, few):
    large = build_network("convnet3", (3, 32, 32), 10), DM.plan(500, True), 5, (3, 32, 32), CPU
    assert training.pays_to_compile(*large) == can_compile("cpu")
    short = Training(*few, digits, **options())
    assert not training.pays_to_compile(short.net, short.plan, 3, digits.shape, CPU)


def test_draws__finds_dropout_and_nothing_else(digits):
    before = torch.get_rng_state()
    for network, found in (("vit_tiny_w16", True), ("resnet10_w4", False), (Dropped, True)):
        net = build_network(network, digits.shape, 10, stream(0, "network"))
        state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        assert draws(net, digits.shape) is found
        assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before)


def test_train__dropout_repeats_for_a_seed_and_leaves_the_global_generator_alone(digits, few):
    """Of one classifier, with weights of which only the dropout differs, too: another seed's."""
    before = torch.get_rng_state()
    first, again = (train(*few, digits, **options(network=Dropped, runs=[0])) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first.params[name], again.params[name]) for name in first.params)

    x, y = few[0].float()[None], few[1][None]
    net, params, buffers = initialise(Dropped, digits, [0], 0, CPU)
    gradients = gradients_of(net, CPU, stacked=False, bf16=False, fast=False)
    losses = [gradients(params, buffers, x, y, [stream(0, "dropout", step)])[1] for step in (0, 0, 1)]
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])


def test_train__of_a_network_that_vmap_cannot_take_goes_one_by_one(digits, few, capsys):
    stacked, alone = (
        train(*few, digits, **options(network=Counting, runs=range(2), stacked=wanted)) for wanted in (True, False)
    )
    assert "vmap cannot take them" in capsys.readouterr().err
    for name in alone.params:
        assert torch.equal(stacked.params[name], alone.params[name])


def test_stacks__takes_other_code_that_vmap_takes(digits):
    def plain(in_shape, num_classes):
        return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), LINEAR())

    state = initialise(plain, digits, range(2), 0, CPU)
    kept = {name: tensor.clone() for name, tensor in state[2].items()}
    assert stacks(*state, digits.shape)
    assert all(torch.equal(kept[name], tensor) for name, tensor in state[2].items()), "a trial changes nothing"


def test_train__keeps_buffers_that_are_not_saved_and_shared_weights(digits, few):
    """What state_dict leaves out or lists twice is each classifier's own all the same."""
    trained = train(*few, digits, **options(network=Odd, runs=range(2)))
    for r in range(2):
        net = trained.network(r)
        assert torch.equal(net.net.seen, trained.buffers["net.seen"][r]) and net.net.seen > 0
        assert net.net.again.weight is net.net.first.weight
        assert torch.equal(net.net.first.weight, trained.params["net.first.weight"][r])


def soft(**changes):
    """Options of a training by a teacher that knows nothing, on small networks."""
    protocol = replace(RD3.shortened(steps=4), teacher="resnet10_w4", **changes)
    return {"protocol": protocol, "bf16": False}


@pytest.mark.parametrize("augment", ["randaugment", "flip_crop", "resized_crop"])
@pytest.mark.parametrize("network", ["convnet2_w8_bn", "convnet1_w8"])
def test_train__stacked_equals_one_by_one_under_other_augmentations(digits, few, augment, network):
    how = options(protocol=replace(DM.shortened(steps=4), augment=augment), network=network, bf16=False)
    one, other = (train(*few, digits, **how, stacked=stacked) for stacked in (True, False))
    for name in one.params:
        torch.testing.assert_close(one.params[name], other.params[name], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("stacked", [False, True])
def test_train__by_a_teacher_equals_the_plain_loop(digits, few, stacked):
    """AdamW with decay of weights only, and the divergence from what the teacher says of the very images."""
    how = options(**soft(augment="none", cutmix=0.0, temperature=3.0, lr=0.01), network="convnet1_w8", runs=[2])
    protocol, teacher = how["protocol"], teaching.untrained(how["protocol"], digits, CPU)
    ours = train(*few, digits, **how, teacher=teacher, stacked=stacked)
    net, judge = build_network("convnet1_w8", digits.shape, 10, stream(1, "network", 2)), teacher.network(0)
    weights = [own for own in net.parameters() if own.dim() > 1]
    others = [own for own in net.parameters() if own.dim() <= 1]
    adam = torch.optim.AdamW([{"params": weights}, {"params": others, "weight_decay": 0.0}], weight_decay=0.01)
    x, plan = (few[0] / 255 - digits.mean[:, None, None]) / digits.std[:, None, None], protocol.plan(40, True)
    for step in range(4):
        index = draw_batches(plan, 40, [2], 1, step)[0]
        said = (judge(x[index]) / 3).softmax(1).detach()
        loss = (said * (said.log() - (net(x[index]) / 3).log_softmax(1))).sum(1).mean()
        adam.zero_grad()
        loss.backward()
        for group in adam.param_groups:
            group["lr"] = 0.01 * (1 + math.cos(math.pi * step / 4)) / 2
        adam.step()
    # Not the weights: Adam makes steps of the noise in a gradient that is zero, that of a bias before the norm.
    torch.testing.assert_close(ours.network(0)(x), net.eval()(x), atol=1e-4, rtol=1e-3)
    assert ours.curve_loss[0][-1] == pytest.approx(loss.item(), abs=1e-5)


@pytest.mark.parametrize("kind", ["mean_std", "zca"])
def test_taught__in_the_space_that_the_teacher_was_trained_in(digits, few, kind):
    how = options(**soft(temperature=3.0), network="convnet1_w8", runs=[0])
    teacher = teaching.untrained(how["protocol"], digits, CPU)
    shown = Training(*few, digits, **how, teacher=teacher, preprocess=Preprocess.fit(digits, kind))
    expected = (teacher.network(0)(teacher.preprocess.forward(few[0])) / 3).softmax(1)
    found = shown._taught(shown.preprocess.forward(few[0])[None])[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_train__by_a_teacher_needs_one_and_ignores_the_sets_labels(digits, few):
    how = options(**soft(), network="convnet1_w8", runs=[0])
    teacher = teaching.untrained(how["protocol"], digits, CPU)
    mine, theirs = (train(few[0], own, digits, **how, teacher=teacher) for own in (few[1], few[1].flip(0)))
    assert all(torch.equal(mine.params[name], theirs.params[name]) for name in mine.params)
    with pytest.raises(InputError, match="protocol rd3_4_steps needs a teacher"):
        train(*few, digits, **how)
    with pytest.raises(InputError, match="protocol dm_2_epochs has no teacher"):
        train(*few, digits, **options(), teacher=teacher)


def LINEAR():
    return torch.nn.Linear(4 * 36, 10)


class Dropped(torch.nn.Sequential):
    """Half of all pixels are dropped, by a function that no module shows."""

    def __init__(self, in_shape, num_classes):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, num_classes))

    def forward(self, x):
        return super().forward(F.dropout(x, 0.5, self.training))


class Counting(torch.nn.Sequential):
    """Asks for a number in the middle of its forward pass."""

    def __init__(self, in_shape, num_classes):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, num_classes))

    def forward(self, x):
        return super().forward(x) * (1 if x.sum().item() > 0 else 2)


class Odd(torch.nn.Module):
    """Two layers of one weight, and a count that is not saved."""

    def __init__(self, in_shape, num_classes):
        super().__init__()
        self.first, self.again = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)
        self.again.weight, self.head = self.first.weight, torch.nn.Linear(64, num_classes)
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x):
        if self.training:
            self.seen += 1
        return self.head(self.again(self.first(x.flatten(1)).relu()).relu())
