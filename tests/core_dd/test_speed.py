import platform
import resource

import pytest
import torch
from commands import run

from core_dd import speed
from core_dd.errors import InputError


def double_sine(x):
    return (2 * x).sin().sum()


def test_pick_device__cpu_is_always_there():
    assert speed.pick_device("cpu").type == "cpu"
    assert speed.pick_device(None).type in ("cpu", "cuda")


@pytest.mark.parametrize("name", ["cuda:99", "tpu"])
def test_pick_device__missing_device(name):
    with pytest.raises(InputError, match=f"device '{name}' is not usable here"):
        speed.pick_device(name)


def test_tf32__for_a_block_on_cuda_alone():
    before = torch.get_float32_matmul_precision()
    with speed.tf32("cpu"), speed.tf32("cuda", enabled=False):
        assert torch.get_float32_matmul_precision() == before
    with pytest.raises(ValueError), speed.tf32("cuda"):
        assert torch.get_float32_matmul_precision() == "high"
        raise ValueError
    assert torch.get_float32_matmul_precision() == before


def test_autocast__bf16_only_where_it_pays(monkeypatch):
    a = torch.randn(4, 4)
    monkeypatch.setattr(speed, "bf16_pays", lambda kind: True)
    with speed.autocast("cpu"):
        assert (a @ a).dtype == torch.bfloat16
    with speed.autocast("cpu", enabled=False):
        assert (a @ a).dtype == torch.float32
    monkeypatch.setattr(speed, "bf16_pays", lambda kind: False)
    with speed.autocast("cpu"):
        assert (a @ a).dtype == torch.float32


@pytest.mark.slow
def test_compiled__same_result(generator, compiling):
    x = torch.randn(100, generator=generator)
    assert torch.allclose(speed.compiled(double_sine, "cpu")(x), double_sine(x))


@pytest.mark.parametrize(("device", "language"), [("cpu", "C++"), ("cuda", "C")])
def test_compiled__without_a_compiler_says_so_once_and_runs(device, language):
    code = (
        "import torch; from core_dd.speed import compiled\n"
        f"f = compiled(torch.sin, '{device}'); g = compiled(torch.cos, '{device}')\n"
        "print(float(f(torch.zeros(1)) + g(torch.zeros(1))))"
    )
    done = run("-c", code, PATH="/nonexistent", CC="", GENDD_COMPILE="")
    assert done.returncode == 0 and done.stdout.strip() == "1.0"
    assert done.stderr.count(f"torch.compile is off because there is no {language} compiler") == 1


def test_compiled__keeps_compiling_for_many_shapes(compiling):
    calls = []

    def backend(graph, inputs):
        calls.append(graph)
        return graph

    fast = speed.compiled(lambda x: x.sin(), "cpu", backend=backend, dynamic=False)
    for size in range(1, 12):
        assert torch.allclose(fast(torch.ones(size)), torch.ones(size).sin())
    assert len(calls) == 11


def failing(graph, inputs):
    raise RuntimeError("no such backend")


@pytest.mark.slow
def test_compile_in_place__keeps_compiling_for_many_networks(monkeypatch, generator, compiling):
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 8)
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    for size in range(1, 12):
        network, x = torch.nn.Linear(size, 2), torch.randn(3, size, generator=generator)
        speed.compile_in_place(network, "cpu", backend=backend, dynamic=False)
        assert torch.allclose(network(x), network.forward(x))
    assert len(graphs) == 11


def test_compile_in_place__goes_on_uncompiled_where_it_fails(capsys, generator, compiling):
    network, x = torch.nn.Linear(4, 2), torch.randn(3, 4, generator=generator)
    speed.compile_in_place(network, "cpu", backend=failing)
    for _ in range(2):
        network(x).sum().backward()
    assert torch.allclose(network.weight.grad, 2 * x.sum(0).expand(2, -1))
    assert capsys.readouterr().err.count("torch.compile failed (BackendCompilerFailed); running uncompiled") == 1


@pytest.mark.parametrize(("seconds", "worth"), [(0, False), (99, False), (101, True), (float("inf"), True)])
def test_pays__what_is_saved_exceeds_what_it_takes(monkeypatch, seconds, worth):
    """A tenth of 100 s is the 10 s that compiling takes; on a device that nobody has measured nothing is compiled."""
    monkeypatch.setattr(speed, "can_compile", lambda kind: True)
    work = speed.Compiling(takes={"cpu": 10}, saves={"cpu": 0.1}, rate={"cpu": 1e10})
    assert work.pays(seconds, "cpu") == worth and not work.pays(seconds, "meta")
    monkeypatch.setenv("GENDD_COMPILE", "1")
    assert work.pays(seconds, "cpu")
    monkeypatch.setattr(speed, "can_compile", lambda kind: False)
    assert not work.pays(seconds, "cpu")


def test_seconds__grow_with_the_work_and_never_vanish():
    work = speed.UVIT_TRAINING
    assert work.seconds(1e12, 6, "cpu") == pytest.approx(2 * work.seconds(1e12, 3, "cpu"))
    assert work.seconds(2e12, 3, "cpu") == pytest.approx(2 * work.seconds(1e12, 3, "cpu"))
    assert work.seconds(1, 1000, "cpu") > 1


def test_forward_flops__are_those_of_an_image():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 6 * 6, 10))
    assert speed.forward_flops(network, torch.zeros(5, 3, 8, 8)) == 2 * (36 * 4 * 27 + 144 * 10)


def page_faults(tensors: int, generator: torch.Generator) -> float:
    """Per page of large tensors (4 to 32 MiB), made and freed one after the other."""
    before, made = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, 0
    for size in torch.randint(2**20, 2**23, (tensors,), generator=generator).tolist():
        made += torch.ones(size).nbytes
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / (made / resource.getpagesize())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told to keep memory")
def test_prepare_device__on_a_cpu_keeps_freed_memory(generator):
    speed.prepare_device("cpu")
    page_faults(60, generator)
    assert page_faults(60, generator) < 0.5  # what other tests left in the heap takes some
