"""The names of tensors in checkpoints, as a plain network has them, whatever it was wrapped in when it was saved."""

from collections.abc import Mapping
from typing import Any

WRAPPERS = frozenset({"_orig_mod", "module", "_fsdp_wrapped_module"})
"""What compiling and data parallelism put into the names of a network's tensors."""


def unwrapped(state: Mapping[Any, Any]) -> dict[str, Any]:
    """A state dict whose names have lost `WRAPPERS`: `module._orig_mod.head.weight` is `head.weight`.

    Two names that become one are left as they were, since they are then no wrapper's.

    Args:
        state: tensors by name.
    """
    plain = {".".join(part for part in str(name).split(".") if part not in WRAPPERS): name for name in state}
    if len(plain) < len(state):
        return {str(name): value for name, value in state.items()}
    return {short: state[name] for short, name in plain.items()}
