"""FSDP: weights, gradients, optimiser and averages split over the processes, as an accelerate config file asks for it.

accelerate reads such a file on GPUs alone: on CPUs version 1.15 trains by DDP without a word, which is mended here.
Whatever leaves the processes, a checkpoint or a model to sample from, is whole: see `gathered`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, InitProcessGroupKwargs
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

from core_dd import processes
from core_dd.errors import require
from gen_dd.uvit import UViT

_UNSUPPORTED = ("offload_params", "activation_checkpointing")


def make_accelerator(*, cpu: bool, precision: str) -> Accelerator:
    """accelerate's accelerator, with FSDP where the launcher's config file asks for it, on CPUs too.

    Args:
        cpu: compute there.
        precision: "no" or "bf16", by autocast: the weights stay in fp32, and so does what the processes exchange.

    Raises:
        InputError: for FSDP 1, or its offloading or checkpointing.
    """
    patience = InitProcessGroupKwargs(timeout=processes.PATIENCE)
    make = partial(Accelerator, cpu=cpu, mixed_precision=precision, kwargs_handlers=[patience])
    AcceleratorState._reset_state()  # an earlier training in this process may have had another precision
    if not processes.fsdp_asked():
        return make()
    version = processes.fsdp_option("version", "1")
    require(version == "2", f"fsdp_version is {version} in the accelerate config, only 2 is supported.")
    for name in _UNSUPPORTED:
        require(
            processes.fsdp_option(name, "false") != "true",
            f"fsdp_{name} is not supported. Set it to false in the accelerate config; --checkpointing saves memory, "
            "too.",
        )
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["Block"],
        mixed_precision_policy=MixedPrecisionPolicy(),  # accelerate's own would round the times to bf16
        cpu_ram_efficient_loading=False,  # every process draws the same first weights
    )
    accelerator = make(fsdp_plugin=plugin)
    if accelerator.distributed_type == DistributedType.MULTI_CPU:
        PartialState().distributed_type = accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin
    return accelerator


def gathered(value: Any, keep: bool = True) -> Any:
    """A nested state with every split tensor whole, in the CPU's memory; all processes must ask for it together.

    Without `keep` the whole tensors are empty ones: this process only helps another to get them.
    """
    if isinstance(value, DTensor):
        full = whole_tensor(value)
        return full.cpu() if keep else full.new_empty(0)
    if isinstance(value, dict):
        return {key: gathered(item, keep) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(gathered(item, keep) for item in value)
    return value


def whole_tensor(value: Tensor) -> Tensor:
    """A split tensor whole, on its device, or a whole one as it is; all processes must ask for it together."""
    return cast(DTensor, value.detach()).full_tensor() if isinstance(value, DTensor) else value


def split_like(value: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of a whole tensor that is laid out as a parameter is; `value` itself where that is whole."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


def split_optimizer(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's whole state, as `gathered` makes it, for the parameters that this one has."""
    owners = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parts = {i: {k: split_like(v, owners[i]) for k, v in moments.items()} for i, moments in state["state"].items()}
    return state | {"state": parts}


def whole(model: UViT, parameters: Sequence[Tensor], device: torch.device) -> UViT:
    """A copy of a network that is not split, with other values of its parameters; all processes together."""
    with torch.device("meta"):
        copy = cast(UViT, type(model).from_config(model.config))
    names = [name for name, _ in copy.named_parameters()]
    copy.load_state_dict(dict(zip(names, gathered(list(parameters)), strict=True)), assign=True)
    return copy.to(device).eval()
