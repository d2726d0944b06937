"""What the benchmarks compare with does the same as ours, and their counts of operations are right."""

import torch

from benchmarks.data import CLASSES
from benchmarks.harness import speed
from benchmarks.plain_uvit import PRESET, PlainUViT, forward_flops
from gen_dd.uvit import PRESETS, UViT


def test_plain_uvit__is_the_same_network(generator):
    sizes = {"image_size": 8, "patch_size": 2, "in_channels": 3, "hidden_size": 32, "depth": 2, "num_heads": 4}
    ours, plain = UViT(**sizes, num_classes=CLASSES), PlainUViT(**sizes, num_classes=CLASSES)
    plain.load_state_dict(ours.state_dict())
    x, t = torch.randn(5, 3, 8, 8, generator=generator), 999 * torch.rand(5, generator=generator)
    labels = torch.arange(5)
    assert torch.allclose(ours(x, t, labels), plain(x, t, labels), atol=1e-5)


def test_forward_flops__equal_the_closed_form():
    width, depth, patch = (PRESETS[PRESET][name] for name in ("hidden_size", "depth", "patch_size"))
    tokens = 2 + (32 // patch) ** 2
    block = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width  # qkv, projection, MLP; then scores and averages
    skip = 2 * tokens * 2 * width**2
    ends = 2 * tokens * width * 3 * patch**2 * 2 - 2 * 2 * width * 3 * patch**2 + 2 * 32**2 * 3 * 3 * 9
    counted = forward_flops(images=4)
    assert counted == 4 * ((depth + 1) * block + depth // 2 * skip + ends)


def test_speed__is_put_beside_a_known_peak(monkeypatch):
    monkeypatch.setattr("benchmarks.harness.machine", lambda: {"device": "NVIDIA H100 80GB HBM3"})
    assert "50% of the 989 TFLOP/s" in speed("uvit_train", 494.5)
    monkeypatch.setattr("benchmarks.harness.machine", lambda: {"device": "cpu"})
    assert speed("uvit_train", 0.4) == "uvit_train: ours does 0.4 TFLOP/s in matrix products"
