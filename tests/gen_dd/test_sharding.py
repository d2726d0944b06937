"""FSDP on two CPU processes, by the accelerate config file that is in the repository."""

import shutil

import pytest
import torch
from commands import ROOT, run

from core_dd import processes
from core_dd.errors import InputError
from core_dd.run import read_stats
from gen_dd.options import TrainConfig
from gen_dd.sharding import make_accelerator
from gen_dd.train import train
from gen_dd.weights import load_model

CONFIG = ROOT / "configs" / "accelerate" / "fsdp_two_cpus.yaml"
OPTIONS = {
    "iterations": 4, "batch_size": 8, "accumulate": 2, "warmup": 2, "lr": 1e-3, "grad_clip": 0.5, "ema_decay": 0.9,
    "log_every": 1, "checkpoint_every": 2, "grid_every": 4, "tracker": "none",
    "check_images": 0, "device": "cpu", "limit_per_class": 8,
    "bf16": False, "compile": False, "dropout": 0.1, "augment": 0.3, "supervise": 0.5,
}  # fmt: skip


def alone(out, **options):
    train(TrainConfig(**OPTIONS | {"out": str(out)} | options))


def state(folder):
    return torch.load(folder / "checkpoints" / "last" / "state.pt", weights_only=True)


def tensors(value):
    """Every tensor in a nested state, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [tensor for item in items for tensor in tensors(item)]


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A run of two processes with split weights."""
    out = tmp_path_factory.mktemp("fsdp") / "run"
    words = [
        f"--{'' if value else 'no_'}{name}" if isinstance(value, bool) else f"--{name}={value}"
        for name, value in (OPTIONS | {"out": out}).items()
    ]
    launch = ["-m", "accelerate.commands.launch", "--config_file", CONFIG, ROOT / "scripts" / "train_uvit.py"]
    done = run(*launch, *words)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_fsdp__equals_one_process(split, tmp_path):
    """Losses, weights, optimiser and averages, gathered whole, and the picture drawn from the averages."""
    alone(tmp_path / "one")
    assert "on 2 x cpu, fp32, 2 images per process and pass, weights split by FSDP" in (split / "log.txt").read_text()
    losses = [[line["loss"] for line in read_stats(run / "stats.jsonl")] for run in (split, tmp_path / "one")]
    assert len(losses[0]) == 4 and losses[0] == pytest.approx(losses[1], rel=1e-4)
    ours, theirs = tensors(state(split)), tensors(state(tmp_path / "one"))
    assert len(ours) == len(theirs) > 100
    assert all(a.shape == b.shape and torch.allclose(a, b, atol=1e-4) for a, b in zip(ours, theirs, strict=True))
    assert (split / "grids" / "step-000004.png").exists()
    average, model = state(split)["ema"]["shadow_params"], load_model(split)[0]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), average, strict=True))


@pytest.mark.slow
def test_fsdp__one_process_goes_on_from_it(split, tmp_path):
    alone(tmp_path / "one", iterations=6)
    shutil.copytree(split, tmp_path / "run", symlinks=True)
    alone(tmp_path / "run", iterations=6, resume=True)
    assert "; 2 process(es) before, 1 now" in (tmp_path / "run" / "log.txt").read_text()
    losses = [[line["loss"] for line in read_stats(tmp_path / name / "stats.jsonl")] for name in ("run", "one")]
    assert len(losses[0]) == 6 and losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_make_accelerator__processes_wait_for_each_other(tmp_path):
    (tmp_path / "wait.py").write_text(
        "import torch\n"
        "from gen_dd.sharding import make_accelerator\n"
        "make_accelerator(cpu=True, precision='no')\n"
        "group = torch.distributed.distributed_c10d._get_default_group()\n"
        "print(group._get_backend(torch.device('cpu')).options._timeout)\n"
    )
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", tmp_path / "wait.py"]
    done = run(*launch)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(processes.PATIENCE)) == 2


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FSDP_VERSION", "1", "fsdp_version is 1 in the accelerate config, only 2 is supported"),
        ("FSDP_OFFLOAD_PARAMS", "true", "fsdp_offload_params is not supported"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", "fsdp_activation_checkpointing is not supported"),
    ],
)
def test_fsdp__refuses_what_it_does_not_do(monkeypatch, name, value, message):
    for variable, setting in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", name: value}.items():
        monkeypatch.setenv(variable, setting)
    with pytest.raises(InputError, match=message):
        make_accelerator(cpu=True, precision="no")
