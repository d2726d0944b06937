"""How many workers of how many threads, and that they live on from order to order."""

from pathlib import Path

import psutil
import pytest
import torch
from commands import Process
from comparisons import write

from core_dd.compare import executors, local
from core_dd.compare.executors import Means
from core_dd.compare.jobs import Order, Outcome
from core_dd.compare.reading import DataChoice
from core_dd.errors import InputError


@pytest.fixture
def machine(monkeypatch):
    """Pretend a machine of so many cores, GiB and GPUs."""

    def pretend(cores: int, gib: float, gpus: int = 0) -> None:
        monkeypatch.setattr(executors, "cores", lambda: cores)
        memory = psutil.virtual_memory()._replace(available=int(gib * 2**30))
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    return pretend


def executor(**changed) -> local.LocalExecutor:
    settings = {"workers": None, "threads": None, "memory_gib": 2.0, "device": None}
    return local.LocalExecutor(Means(out=Path("out"), paths=(), **(settings | changed)))


@pytest.mark.parametrize(
    ("cores", "gib", "gpus", "asked", "said"),
    [
        (8, 64, 0, {}, "8 workers of 1 thread"),
        (8, 5, 0, {}, "2 workers of 4 threads"),
        (8, 1, 0, {}, "1 worker of 8 threads"),
        (8, 64, 0, {"workers": 3}, "3 workers of 2 threads"),
        (8, 64, 0, {"threads": 5}, "8 workers of 5 threads"),
        (8, 64, 4, {}, "4 workers of 2 threads on 4 GPUs"),
        (8, 64, 4, {"device": "cpu"}, "8 workers of 1 thread"),
        (2, 64, 0, {"workers": 0}, "in this process"),
    ],
)
def test_executor__takes_what_the_machine_has(machine, cores, gib, gpus, asked, said):
    machine(cores, gib, gpus)
    with executor(**asked) as found:
        assert found.said == said


def test_executor__this_process_computes_with_the_threads_that_are_asked_for(machine, monkeypatch):
    machine(8, 64)
    settled = []
    monkeypatch.setattr(local, "settle", lambda threads, paths: settled.append(threads))
    executor(workers=0), executor(workers=0, threads=3)
    assert settled == [3]


def test_executor__a_gpu_that_there_is_not_is_said_before_any_work(machine):
    machine(8, 64)
    with pytest.raises(InputError, match="no GPU that PyTorch can use. Give --device cpu"):
        executor(device="cuda")


def test_executor__heeds_the_threads_and_gpus_of_its_environment(machine, monkeypatch):
    machine(8, 64, 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    with executor() as found:
        assert found.said == "2 workers of 3 threads on 2 GPUs"
        assert [worker._setting[1] for worker in found._workers] == ["5", "7"]


SEEN = """\
import os, torch
from matching_dd import coreset
def make(data, ipc, seed, out):
    (out / "seen").write_text(f"{os.getpid()} {torch.get_num_threads()} {os.getppid()}")
    print("made", flush=True)
    os.write(1, b"past Python\\n")
    return coreset("random", data, ipc, seed)
"""


@pytest.mark.slow
def test_workers__do_one_order_after_the_other_with_their_threads_and_logs():
    Path("mine.py").write_text(SEEN)
    write(producers={"Mine": {"function": "mine:make"}}, ipc=[1, 2, 3], seeds=2)
    words = ["-m", "core_dd.compare.compare", "small.yaml", "--out=out", "--device=cpu", "--workers=2", "--threads=1"]
    process = Process(*words)
    assert process.wait() == 0, process.stderr
    seen = [path.read_text().split() for path in Path("out").glob("sets/*/seen")]
    assert len(seen) == 6 and len({pid for pid, _, _ in seen}) <= 2 and str(process.pid) not in {own[0] for own in seen}
    assert {threads for _, threads, _ in seen} == {"1"}
    log = next(Path("out/logs").glob("set-Mine*")).read_text()
    assert "made" in log and "past Python" in log
    assert "2 workers of 1 thread" in process.stderr and "compare: 6 of 6 scores" in process.stderr


def test_worker__that_was_ended_while_it_began_does_nothing():
    where, data = {"folder": "made", "log": "log"}, DataChoice("digits", name="digits")
    order = Order(key="k", kind="set", title="t", function="os:abort", options={}, data=data, needs=(), **where)
    worker = local._Worker(1, None, ())
    worker.kill()
    assert worker.do(order) == Outcome("k", local.LOST)
    worker.close()
