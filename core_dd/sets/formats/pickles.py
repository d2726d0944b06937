"""Files of Python's pickle, opened without trust: tensors, arrays and plain containers, and nothing is executed."""

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from core_dd.data import readers
from core_dd.errors import InputError, require

SAVED = (b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")
"""How files of torch.save begin: as a zip, or before version 1.6 with a magic number."""


def is_pickle(path: Path) -> bool:
    """Whether a file begins like one of pickle (protocol 2 or later) that is not torch.save's."""
    with path.open("rb") as file:
        head = file.read(16)
    return head[:1] == b"\x80" and not head.startswith(SAVED)


def load(path: Path) -> Any:
    """What a file of pickle holds, if that is tensors, numbers, text and plain containers; arrays as tensors.

    Raises:
        InputError: if it is truncated, or asks for anything else; the message names what.
    """
    try:
        with path.open("rb") as file:
            return readers.as_tensors(_Numbers(file).load())
    except InputError as error:
        raise InputError(f"{path} {error}") from None
    except Exception as error:  # pickle raises many kinds for a damaged file; each means the same to the user
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"cannot read {path}: {reason}. It is truncated or no file of pickle; fetch it again."
        ) from None


def _storage(content: bytes) -> Any:
    """The storage of a tensor, which pickle holds as a file of torch.save of its own."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _bytes(text: str, encoding: str) -> bytes:
    """How pickles of protocol 2 hold bytes."""
    return text.encode("latin1")


_core = "numpy.core", "numpy._core"
_reconstruct: Any = np.zeros(0).__reduce__()[0]
_scalar: Any = np.float64(0).__reduce__()[0]
_frombuffer: Any = np.zeros(1).__reduce_ex__(5)[0]

MAKERS: MappingProxyType[str, Callable[..., Any]] = MappingProxyType(
    {
        "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
        "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
        "torch.storage._load_from_bytes": _storage,
        "_codecs.encode": _bytes,
        **{f"{core}.multiarray._reconstruct": _reconstruct for core in _core},
        **{f"{core}.multiarray.scalar": _scalar for core in _core},
        **{f"{core}.numeric._frombuffer": _frombuffer for core in _core},
    }
)
"""The functions that a pickle of tensors or arrays calls."""

TYPES: MappingProxyType[str, type] = MappingProxyType(
    {"collections.OrderedDict": OrderedDict, "numpy.ndarray": np.ndarray, "numpy.dtype": np.dtype}
)
"""The types that it names, all of them closed to changes."""


class _Numbers(pickle.Unpickler):
    """Knows what tensors and arrays are made of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if asked in TYPES:
            return TYPES[asked]
        require(
            asked in MAKERS,
            f"is a pickle that wants to run code; it was not loaded (it asks for {asked}). Offer safetensors, or "
            "tensors saved by torch.save.",
        )
        make = MAKERS[asked]
        return lambda *arguments: make(*arguments)  # a new function each time: what a pickle sets on it is lost

    def persistent_load(self, name: Any) -> Any:
        raise InputError("is a pickle that refers to something outside itself. Offer tensors saved by torch.save.")
