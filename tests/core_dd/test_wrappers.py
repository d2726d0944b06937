import pytest
import torch
from torch import nn

from core_dd.judge.fidelity import classifier_identity, kept_classifier, real_classifier
from core_dd.sets.distilled import read_tensors, write_tensors
from core_dd.wrappers import unwrapped


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "module._orig_mod.", "_fsdp_wrapped_module."])
def test_unwrapped__names_of_a_plain_network(prefix):
    state = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).state_dict()
    assert unwrapped({prefix + name: tensor for name, tensor in state.items()}).keys() == state.keys()


def test_unwrapped__of_a_network_that_really_has_such_parts():
    state = {"module.weight": 1, "weight": 2}
    assert unwrapped(state) == state


def test_real_classifier__from_a_file_of_a_compiled_or_parallel_network(digits, tmp_path):
    device = torch.device("cpu")
    own = kept_classifier(digits, "convnet1_w8", 0, device)
    tensors = own.params | own.buffers
    place = tmp_path / "a.safetensors"
    prefixed = {f"module._orig_mod.{name}": tensor for name, tensor in tensors.items()}
    write_tensors(place, prefixed, digits.origin | classifier_identity("convnet1_w8", 0))
    again = real_classifier(digits, "convnet1_w8", 0, device, cache=place)
    assert all(torch.equal(again.params[name], tensor) for name, tensor in own.params.items())
    assert read_tensors(place)[0].keys() == prefixed.keys()
