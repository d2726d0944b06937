"""The Inception network of FID (Heusel et al. 2017), with torch-fidelity's copy of the original weights."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from core_dd.data import readers
from core_dd.errors import InputError, require

_CHUNK = 50
"""Images per forward."""


def load_inception(weights: str | None, device: torch.device) -> tuple[nn.Module | None, str]:
    """torch-fidelity's Inception network, which gives features (N, 2048) and logits (N, 1008); or None and why.

    Args:
        weights: a file of torch-fidelity's Inception weights; None: its download; "none": do without.
        device: where to compute.

    Raises:
        InputError: if the named file is missing or holds other weights.
    """
    if weights == "none":
        return None, "inception_weights is 'none'"
    if weights is not None:
        require(
            Path(weights).is_file(), f"no Inception weights at {weights}. Leave out --inception_weights to download."
        )
        readers.load_tensors(Path(weights))  # refuses a pickle that would run code, which torch-fidelity would let
    try:
        from torch_fidelity.utils import create_feature_extractor

        options = {"feature_extractor_weights_path": weights, "verbose": False}
        layers = ["2048", "logits_unbiased"]
        return create_feature_extractor("inception-v3-compat", layers, cuda=False, **options).to(device), ""
    except ImportError:
        return None, "torch-fidelity is not installed"
    except Exception as error:  # a failed download or a damaged file comes as one of many kinds
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        if weights is not None:
            raise InputError(f"{weights} holds no weights of torch-fidelity's Inception ({reason}).") from None
        return None, f"its weights could not be downloaded ({reason})"


def weights_digest(weights: str | None) -> str:
    """A short name of the Inception weights, for the cache."""
    if weights is None or weights == "none":
        return "download"
    return hashlib.blake2b(Path(weights).read_bytes(), digest_size=8).hexdigest()


@torch.inference_mode()
def inception_outputs(net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, 2048) and logits without bias (N, 1008), on the CPU, of uint8 images (N, 1 or 3, H, W)."""
    device = next(net.parameters()).device
    parts = [net(x.expand(-1, 3, -1, -1).to(device)) for x in images.split(_CHUNK)]
    features, logits = (torch.cat([part[i].cpu() for part in parts]) for i in range(2))
    return features, logits
