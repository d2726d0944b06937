import contextlib
import dataclasses
import functools
import json
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from commands import ROOT, Process, run

from core_dd import records, speed
from core_dd.data.images import load_data
from core_dd.errors import InputError
from core_dd.run import Run, checkpoints, read_stats
from gen_dd.options import TrainConfig, TuneConfig
from gen_dd.train import dry_run, finish, open_run, train
from gen_dd.trainer import Trainer, make_model
from gen_dd.weights import load_model

SCRIPT = ROOT / "scripts" / "train_uvit.py"
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
QUICK = {
    "iterations": 12, "batch_size": 8, "warmup": 2, "lr": 1e-3, "ema_decay": 0.9, "log_every": 1, "checkpoint_every": 4,
    "grid_every": 0, "check_images": 0, "tracker": "none", "device": "cpu", "limit_per_class": 8,
    "bf16": False, "compile": False, "dropout": 0.1, "augment": 0.3, "supervise": 0.5, "anneal": 0.5, "growth": 2,
}  # fmt: skip


def flags(**options):
    words = [
        (f"--{'' if value else 'no_'}{name}",) if isinstance(value, bool) else (f"--{name}", str(value))
        for name, value in (QUICK | options).items()
    ]
    return [word for pair in words for word in pair]


def state(folder):
    return torch.load(folder / "checkpoints" / "last" / "state.pt", weights_only=True)


def flat(value):
    """Every tensor in a nested state, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [tensor for item in items for tensor in flat(item)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One uninterrupted run in one process."""
    folder = tmp_path_factory.mktemp("train") / "whole"
    train(TrainConfig(**QUICK, out=str(folder)))
    return folder


def test_train__writes_a_model_the_sampler_reads(whole):
    model, card = load_model(whole)
    assert card["data"] == "digits" and card["step"] == 12 and len(card["class_names"]) == 10
    ema = state(whole)["ema"]["shadow_params"]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), ema, strict=True))


def test_train__lowers_the_loss(tmp_path):
    train(
        TrainConfig(
            **QUICK | {"iterations": 40, "batch_size": 16, "out": str(tmp_path / "run"), "checkpoint_every": 40}
        )
    )
    losses = [line["loss"] for line in read_stats(tmp_path / "run" / "stats.jsonl")]
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])


def test_train__kill_and_resume_equals_the_uninterrupted_run(whole, tmp_path):
    command = (SCRIPT, *flags(out=tmp_path / "run"))
    Process(*command).kill_once((tmp_path / "run" / "checkpoints" / "last").exists)
    again = run(*command)
    assert again.returncode == 2 and "exists" in again.stderr
    resumed = run(*command, "--resume")
    assert resumed.returncode == 0 and "resumed at step" in resumed.stderr, resumed.stderr
    assert (tmp_path / "run" / "stats.jsonl").read_text() == (whole / "stats.jsonl").read_text()
    ours, theirs = flat(state(tmp_path / "run")), flat(state(whole))
    assert len(ours) == len(theirs) and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_train__two_processes_equal_one(whole, tmp_path):
    """Equal up to float rounding, which AdamW's first steps enlarge: 1e-4 of weights that moved by about 1e-2."""
    done = run(*TWO, SCRIPT, *flags(out=tmp_path / "run", check_images=20, eval_network="convnet1_w8"))
    assert done.returncode == 0, done.stderr
    assert records.read(tmp_path / "run" / "learnt.json")["samples"] == 20
    assert done.stderr.count("a classifier of the real data gives") == 1
    assert "on 2 x cpu, fp32, 4 images per process and pass" in (tmp_path / "run" / "log.txt").read_text()
    ours, theirs = read_stats(tmp_path / "run" / "stats.jsonl"), read_stats(whole / "stats.jsonl")
    assert [line["loss"] for line in ours] == pytest.approx([line["loss"] for line in theirs], rel=1e-3)
    for a, b in zip(flat(state(tmp_path / "run")["model"]), flat(state(whole)["model"]), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.slow
def test_train__resumes_with_another_number_of_processes(whole, tmp_path):
    """From one process to two, to the same result as `whole` but for rounding; the log says so."""
    train(TrainConfig(**QUICK, chunk_seconds=1e-9, out=str(tmp_path / "run")))  # a step
    done = run(*TWO, SCRIPT, *flags(out=tmp_path / "run", resume=True))
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "; 1 process(es) before, 2 now, the same global batch of 8" in log
    ours, theirs = read_stats(tmp_path / "run" / "stats.jsonl"), read_stats(whole / "stats.jsonl")
    assert ours[0] == theirs[0]
    assert [line["loss"] for line in ours] == pytest.approx([line["loss"] for line in theirs], rel=1e-3)
    for a, b in zip(flat(state(tmp_path / "run")["model"]), flat(state(whole)["model"]), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def without(*path):
    """A state without what is found there."""

    def change(state):
        for key in path[:-1]:
            state = state[key]
        state.pop(path[-1])

    return change


def wider(state):
    """One class more in the label embedding."""
    state["model"]["label_emb.weight"] = torch.zeros(12, 96)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (without("model", "norm.weight"), "KeyError: 'norm.weight'"),
        (lambda state: state.clear(), "missing required field model"),
        (wider, "RuntimeError: .* size mismatch for label_emb.weight"),
        (without("optimizer", "param_groups", 0, "params", 0), "ValueError: "),
        (without("ema", "shadow_params", 0), "ValueError: "),
        (without("seconds"), "missing required field seconds"),
    ],
)
def test_resume__refuses_another_state(whole, tmp_path, change, why):
    run = shutil.copytree(whole, tmp_path / "run", symlinks=True)
    content = state(run)
    change(content)
    torch.save(content, run / "checkpoints" / "last" / "state.pt")
    message = rf"step-000012.*{why}.*Remove this checkpoint to resume"
    with pytest.raises(InputError, match=message):
        train(TrainConfig(**QUICK | {"out": str(run), "iterations": 13, "resume": True}))


def other_pixels(folder):
    """One image of another digit in the place of one."""
    shutil.copy(folder / "train" / "class3" / "019.png", folder / "train" / "class2" / "013.png")


def fewer_classes(folder):
    for split in ("train", "test"):
        shutil.rmtree(folder / split / "class9")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("change", [other_pixels, fewer_classes])
def test_resume__refuses_other_data_at_the_same_place(digit_files, tmp_path, change, stream):
    options = QUICK | {"data": f"folder:{digit_files}", "limit_per_class": 4, "stream": stream, "workers": 0}
    options |= {"out": str(tmp_path / "run")}
    train(TrainConfig(**options | {"iterations": 1}))
    train(TrainConfig(**options | {"iterations": 2, "resume": True}))
    change(digit_files)
    message = r"step-000002 was trained on digit_files \(fingerprint \w+\), but the data are now digit_files \(finger"
    with pytest.raises(InputError, match=message):
        train(TrainConfig(**options | {"iterations": 3, "resume": True}))


@pytest.mark.parametrize(("limits", "waits"), [({}, 0), ({"max_seconds": 9.0}, 1), ({"chunk_seconds": 9.0}, 1)])
def test_clock__processes_agree_on_the_time_only_where_it_is_limited(digits, monkeypatch, limits, waits):
    trainer, calls = Trainer.start(TrainConfig(**QUICK | limits), digits), []
    real = trainer.accelerator.reduce
    monkeypatch.setattr(trainer.accelerator, "reduce", lambda *args: calls.append(args) or real(*args))
    trainer.processes = 2
    assert trainer.clock(1.5) == 1.5 and len(calls) == waits


def test_config__a_gpu_is_not_chosen_by_its_index():
    with pytest.raises(InputError, match="device cuda:1: .* Set CUDA_VISIBLE_DEVICES=1 and pass --device cuda"):
        TrainConfig(device="cuda:1")


def test_finish__the_earlier_model_stays_until_the_new_one_is_whole(whole, tmp_path):
    """A copy that fails half-way, then one killed between the two renames, then an undisturbed one."""
    folder = shutil.copytree(whole, tmp_path / "run", symlinks=True)
    last, model = folder / "checkpoints" / "last" / "model", folder / "model"
    (model / "earlier").write_text("")
    (last / "gone").symlink_to("nowhere")
    with pytest.raises(shutil.Error):
        finish(Run(folder, 3, True, contextlib.ExitStack()))
    assert (model / "earlier").exists() and load_model(folder)[1]["step"] == 12
    (last / "gone").unlink()
    finish(Run(folder, 3, True, contextlib.ExitStack()))
    assert not (model / "earlier").exists() and load_model(folder)[1]["step"] == 12
    model.rename(folder / ".model.old")
    finish(Run(folder, 3, True, contextlib.ExitStack()))
    assert load_model(folder)[1]["step"] == 12 and not list(folder.glob(".model*"))


def test_trainer__goes_on_uncompiled_where_compiling_fails(digits, monkeypatch, capsys, compiling):
    def failing(graph, inputs):
        raise RuntimeError("no such backend")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=failing))
    losses = []
    for on in (True, False):
        trainer = Trainer.start(TrainConfig(**QUICK | {"compile": on}), digits)
        trainer.compile()
        losses.append(trainer.step(0).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6) and "running uncompiled" in capsys.readouterr().err


def test_trainer__refuses_a_pass_that_memory_cannot_hold(digits, monkeypatch):
    """Of 8 images the tiny network keeps some MiB: more than one tensor per block, less than a hundred."""
    one = 8 * 18 * 96 * 4 / 2**20  # 16 patches, label and time
    monkeypatch.setattr("gen_dd.trainer.free_mib", lambda device: 500 * one)
    trainer = Trainer.start(TrainConfig(**QUICK), digits)
    assert not trainer.optimizer.state and all(own.grad is None for own in trainer.model.parameters())
    monkeypatch.setattr("gen_dd.trainer.free_mib", lambda device: 5 * one)
    with pytest.raises(
        InputError, match=r"a pass of 8 images wants about \S+ GiB, and 0.0 GiB are free. Pass a larger"
    ):
        Trainer.start(TrainConfig(**QUICK), digits)
    monkeypatch.setattr("gen_dd.trainer.free_mib", lambda device: 100 * one)
    Trainer.start(TrainConfig(**QUICK | {"accumulate": 8}), digits)


def test_trainer__holds_the_images_once_however_many_batches_grow(digits):
    trainer = Trainer.start(TrainConfig(**QUICK), digits)
    assert trainer.batches(0).pixels.images is trainer.batches(1).pixels.images
    elsewhere = [digits.pixels(lambda step: torch.arange(2), torch.device("meta")).images for _ in range(2)]
    assert elsewhere[0] is elsewhere[1]


def test_trainer__no_step_of_a_tuning_compiles(digits, whole, monkeypatch, compiling):
    """Also not the pass without a gradient."""
    graphs = []

    def counting(graph, inputs):
        graphs.append(torch.is_grad_enabled())
        return graph

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counting))
    tuning = {name: value for name, value in QUICK.items() if name not in ("augment", "supervise", "growth", "anneal")}
    options = tuning | {"compile": True, "init_from": str(whole), "iterations": 10**7}
    trainer = Trainer.start(TuneConfig(**options), digits)
    trainer.compile()
    before = len(graphs)
    trainer.step(0)
    assert before >= 2 and len(graphs) == before


def test_train__past_its_iterations_is_refused(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "own")
    with pytest.raises(InputError, match=r"is past step 5\. Raise --iterations"):
        train(TrainConfig(**QUICK | {"iterations": 5}, out=str(tmp_path / "own"), resume=True))


def test_dry_run__says_what_a_time_limit_leaves(capsys):
    dry_run(TrainConfig(**QUICK | {"iterations": 10**6, "max_seconds": 100.0}))
    assert re.search(r"# time: .* per step: 0:01:4\d, its limit of seconds", capsys.readouterr().out)


def test_dry_run__forecasts_what_a_resumed_run_has_left(whole, capsys):
    dry_run(TrainConfig(**QUICK | {"iterations": 15}, out=str(whole), resume=True))
    assert re.search(r"# time: .* per step: 0:00:\d\d for 3", capsys.readouterr().out)


def test_train__a_chunk_that_ended_says_so(tmp_path, capsys):
    options = QUICK | {"out": str(tmp_path / "run"), "iterations": 2}
    train(TrainConfig(**options, chunk_seconds=1e-9))
    said = "chunk_seconds 1e-09 ended this call at step 1 of 2, and the training goes on with --resume"
    assert said in capsys.readouterr().err
    train(TrainConfig(**options, resume=True))
    assert "ended this call" not in capsys.readouterr().err


LONG, SHORT = {"iterations": 10**7}, {"iterations": 10}


@pytest.mark.parametrize(
    ("options", "done", "trained", "worth"),
    [
        (LONG, 0, 0, True),
        (LONG, 10**7 - 1, 0, True),  # resumed to the uninterrupted run's weights
        (SHORT, 0, 0, False),
        (LONG | {"compile": False}, 0, 0, False),
        (LONG | {"max_seconds": 150.0}, 0, 0, False),
        (LONG | {"max_seconds": 1e6}, 0, 0, True),
        (LONG | {"max_seconds": 1e6}, 0, 1e6 - 150, False),
        (LONG | {"max_seconds": 1e6}, 10**7 - 10, 0, False),
    ],
)
def test_compile__only_where_it_pays_in_what_is_left(digits, monkeypatch, options, done, trained, worth):
    """Compiled or not, no step has been taken: neither the weights nor what the optimiser remembers have changed."""
    found = []
    monkeypatch.setattr(speed, "can_compile", lambda kind: True)
    monkeypatch.setattr("gen_dd.trainer.compile_in_place", lambda model, device, **options: found.append(model))
    trainer = Trainer.start(TrainConfig(**QUICK | {"compile": True} | options), digits)
    before, trainer.seconds = [parameter.clone() for parameter in trainer.model.parameters()], trained
    trainer.compile(done)
    assert (found == [trainer.scaffold]) == worth
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, trainer.model.parameters(), strict=True))
    assert not trainer.optimizer.state


def test_train__time_limits_count_steps_alone(tmp_path, monkeypatch):
    """Compiling, pictures and checkpoints take an hour each here, by a clock that only they advance."""
    now = [0.0]
    monkeypatch.setattr("gen_dd.train.time", SimpleNamespace(perf_counter=lambda: now[0]))

    def slow(real, seconds):
        def slowly(*args):
            now[0] += seconds
            return real(*args)

        return slowly

    for name, seconds in {"step": 1, "compile": 3600, "picture": 3600, "save": 3600}.items():
        monkeypatch.setattr(Trainer, name, slow(getattr(Trainer, name), seconds))
    options = {
        "iterations": 100,
        "max_seconds": 6.0,
        "checkpoint_every": 2,
        "grid_every": 3,
        "out": str(tmp_path / "run"),
    }
    train(TrainConfig(**QUICK | options | {"chunk_seconds": 4.0}))
    assert checkpoints(tmp_path / "run")[-1][0] == 4
    train(TrainConfig(**QUICK | options | {"resume": True}))
    step, last = checkpoints(tmp_path / "run")[-1]
    assert step == 6 and torch.load(last / "state.pt", weights_only=True)["seconds"] == pytest.approx(6.0)


def test_step__accumulation_changes_nothing(digits):
    losses = []
    for accumulate in (1, 2, 4):
        trainer = Trainer.start(TrainConfig(**QUICK | {"accumulate": accumulate}), digits)
        losses.append([trainer.step(step).item() for step in range(3)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and losses[2] == pytest.approx(losses[0], rel=1e-4)


def test_step__gradient_checkpointing_changes_nothing(digits):
    losses = []
    for checkpointing in (False, True):
        trainer = Trainer.start(TrainConfig(**QUICK | {"checkpointing": checkpointing}), digits)
        losses.append([trainer.step(step).item() for step in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_step__bf16_agrees_with_fp32(digits):
    """bf16 keeps 8 bits: products are off by 2^-9 each and average out; 2 % of the loss, and gradients that point the
    same way to cosine 0.99, are far below the noise between batches (about 20 % here)."""
    losses, gradients = [], []
    for bf16 in (False, True):
        trainer = Trainer.start(TrainConfig(**QUICK | {"batch_size": 64, "bf16": bf16, "grad_clip": 1e9}), digits)
        losses.append(trainer.step(0).item())
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


@pytest.mark.slow
def test_train__streamed_equals_in_memory(digit_files, tmp_path):
    """From a folder, over epochs, with evaluation and with another number of workers after a resume: losses and weights
    bit for bit, distances but for rounding."""
    options = QUICK | {
        "data": f"folder:{digit_files}", "limit_per_class": 4, "val_fraction": 0.2, "eval_every": 6, "eval_images": 20,
        "eval_network": "convnet1_w8",
        "eval_steps": 2, "inception_weights": "none", "hflip": True, "anneal": 0.0, "growth": 1,
    }  # fmt: skip
    train(TrainConfig(**options | {"out": str(tmp_path / "whole"), "stream": False}))
    train(TrainConfig(**options | {"out": str(tmp_path / "run"), "stream": True, "workers": 2, "iterations": 7}))
    again = {"out": str(tmp_path / "run"), "stream": True, "workers": 0, "resume": True}
    train(TrainConfig(**options | again))
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "scores compare with 40 of the training images" in log
    assert "40 images streamed by 2 worker(s)" in log and "40 images streamed by 0 worker(s)" in log
    streamed, whole = (
        {line["step"]: line for line in read_stats(tmp_path / name / "stats.jsonl")} for name in ("run", "whole")
    )
    assert [streamed[step]["loss"] for step in range(1, 13)] == [whole[step]["loss"] for step in range(1, 13)]
    for step in (6, 12):
        assert streamed[step] == pytest.approx(whole[step], rel=1e-5) and "classifier_frechet" in whole[step]
    ours, theirs = flat(state(tmp_path / "run")), flat(state(tmp_path / "whole"))
    assert len(ours) == len(theirs) and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_make_model__weights_come_from_the_seed(digits):
    a, b, c = (make_model(TrainConfig(seed=seed), digits) for seed in (0, 0, 1))
    assert torch.equal(a.pos_embed, b.pos_embed) and not torch.equal(a.pos_embed, c.pos_embed)


def test_init_from__a_model_folder_keeps_its_weights(whole, digits, capsys):
    source, _ = load_model(whole)
    same = make_model(TrainConfig(init_from=str(whole)), digits)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), same.parameters(), strict=True))
    larger = make_model(TrainConfig(init_from=str(whole)), load_data("digits", image_size=16))
    assert larger.config.image_size == 16 and larger.config.num_heads == source.config.num_heads
    text = capsys.readouterr().err
    assert "patch positions resized from 4x4 to 8x8" in text and "dropped label_emb.weight" in text


def test_init_from__a_training_checkpoint_gives_its_averaged_weights(whole, digits):
    source, last = load_model(whole)[0], whole / "checkpoints" / "last"
    for place in (last, last / "state.pt"):
        model = make_model(TrainConfig(init_from=str(place)), digits)
        assert all(torch.equal(a, b) for a, b in zip(source.parameters(), model.parameters(), strict=True))


def test_make_model__knows_whether_the_null_class_is_learnt(whole, digits):
    for options in ({}, {"init_from": str(whole)}):
        assert make_model(TrainConfig(**options), digits).config.null_trained
        assert not make_model(TrainConfig(**options, label_dropout=0.0), digits).config.null_trained


def test_init_from__official_checkpoint(whole, digits, tmp_path, capsys):
    state = load_model(whole)[0].state_dict()
    state.pop("label_emb.weight")
    state["pos_embed"] = state["pos_embed"][:, 1:]
    torch.save(state, tmp_path / "official.pth")
    model = make_model(TrainConfig(init_from=str(tmp_path / "official.pth")), digits)
    assert torch.equal(model.pos_embed[:, 1:], state["pos_embed"]) and model.config.num_classes == 10
    assert "a label position was put before the others" in capsys.readouterr().err


def test_init_from__a_resumed_run_does_not_want_the_file_again(whole, tmp_path, capsys):
    start = shutil.copytree(whole / "model", tmp_path / "start")
    options = QUICK | {"init_from": str(start), "out": str(tmp_path / "run"), "limit_per_class": 7}
    train(TrainConfig(**options | {"iterations": 8}))
    shutil.rmtree(start)
    assert "tensors as they are" in capsys.readouterr().err
    train(TrainConfig(**options, resume=True))
    with pytest.raises(InputError, match="was started with image_size None, now it is 16"):
        train(TrainConfig(**options | {"image_size": 16}, resume=True))
    with pytest.raises(InputError, match=r"learns 10 classes of 1x8x8 pixels, and digits has 10 of 1x16x16"):
        make_model(TrainConfig(**options, resume=True), load_data("digits", image_size=16))
    assert "tensors as they are" not in capsys.readouterr().err and load_model(tmp_path / "run")[1]["step"] == 12


def test_init_from__other_channels(whole, digits):
    colour = dataclasses.replace(digits, train_images=digits.train_images.repeat(1, 3, 1, 1))
    with pytest.raises(InputError, match="trained on images of 1 channels, digits has 3"):
        make_model(TrainConfig(init_from=str(whole)), colour)


def test_train__stops_on_a_diverged_loss(tmp_path):
    with pytest.raises(InputError, match=r"loss is (nan|inf) at step \d+\. The last good .*step-00000[12]"):
        train(
            TrainConfig(**QUICK | {"iterations": 2000, "lr": 1e30, "checkpoint_every": 1, "out": str(tmp_path / "run")})
        )


def test_train__names_the_step_whose_loss_diverged_between_two_lines_of_the_log(tmp_path):
    options = QUICK | {
        "iterations": 100,
        "lr": 1e30,
        "checkpoint_every": 10,
        "log_every": 100,
        "out": str(tmp_path / "run"),
    }
    with pytest.raises(InputError, match=r"loss is (nan|inf) at step [2-9]\. The last good checkpoint is none yet"):
        train(TrainConfig(**options))
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))


def test_save__keeps_no_weights_that_are_not_finite(digits, tmp_path):
    config = TrainConfig(**QUICK | {"out": str(tmp_path / "run")})
    trainer, run = Trainer.start(config, digits), open_run(config, digits)
    trainer.step(0)
    trainer.save(run, 1, None, {})
    with torch.no_grad():
        trainer.model.pos_embed[0, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"weights is nan at step 2\. The last good checkpoint is .*step-000001;"):
        trainer.save(run, 2, None, {})
    assert [step for step, _ in checkpoints(run.folder)] == [1]


def test_train__two_processes_say_a_mistake_once(tmp_path):
    done = run(*TWO, SCRIPT, *flags(out=tmp_path / "run", batch_size=7))
    assert done.returncode != 0 and done.stderr.count("error: batch_size 7 is not a multiple of 2 processes") == 1


def test_train__max_seconds_stops_with_a_model(tmp_path):
    train(
        TrainConfig(
            **QUICK | {"iterations": 10**6, "max_seconds": 1.0, "out": str(tmp_path / "run"), "checkpoint_every": 10**6}
        )
    )
    _, card = load_model(tmp_path / "run")
    assert 0 < card["step"] < 10**6
    assert json.loads((tmp_path / "run" / "stats.jsonl").read_text().splitlines()[-1])["step"] == card["step"]


def test_trainer__batch_that_cannot_be_dealt_out(digits):
    with pytest.raises(InputError, match="batch_size 8 is not a multiple of 1 processes x accumulate 3"):
        Trainer.start(TrainConfig(**QUICK | {"accumulate": 3}), digits)
