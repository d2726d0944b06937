"""How close a set's images are to the real ones: distances of features."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from core_dd import train_eval
from core_dd.data import ImageData
from core_dd.distilled import read_tensors, write_tensors
from core_dd.errors import require
from core_dd.preprocess import Preprocess
from core_dd.protocols import QUICK, Protocol
from core_dd.speed import autocast, pick_device


def frechet_distance(mu1: Tensor, cov1: Tensor, mu2: Tensor, cov2: Tensor) -> float:
    """Squared Wasserstein-2 distance of two Gaussians (Dowson & Landau 1982; Heusel et al. 2017, eq. 6).

    `|mu1 - mu2|^2 + tr(cov1 + cov2 - 2 (cov1 cov2)^(1/2))`, in float64. The trace of the root is the sum of the roots
    of the eigenvalues of `cov1 cov2`, which are those of the symmetric `cov1^(1/2) cov2 cov1^(1/2)`; covariances of
    fewer images than dimensions are welcome.

    Args:
        mu1, mu2: means, (D,).
        cov1, cov2: covariances, (D, D), symmetric positive semi-definite.

    Returns:
        >= 0 up to rounding.

    Raises:
        InputError: if the shapes do not fit.
    """
    d = len(mu1)
    require(
        mu1.shape == mu2.shape == (d,) and cov1.shape == cov2.shape == (d, d),
        f"expected two means (D,) and two covariances (D, D), got {tuple(mu1.shape)}, {tuple(cov1.shape)}, "
        f"{tuple(mu2.shape)} and {tuple(cov2.shape)}.",
    )
    mu1, cov1, mu2, cov2 = (tensor.double() for tensor in (mu1, cov1, mu2, cov2))
    values, vectors = torch.linalg.eigh(cov1)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.mT
    eigenvalues = torch.linalg.eigvalsh(root @ cov2 @ root)
    cross = eigenvalues.clamp_min(0).sqrt().sum()
    return float((mu1 - mu2).square().sum() + cov1.trace() + cov2.trace() - 2 * cross)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and unbiased covariance (D, D) of features (N, D), in float64.

    Raises:
        InputError: for fewer than two rows.
    """
    require(len(features) >= 2, f"a covariance needs at least 2 images, got {len(features)}.")
    return features.double().mean(0), features.double().T.cov()


def real_classifier(
    data: ImageData,
    network: str = "convnet3",
    seed: int = 0,
    device: torch.device | None = None,
    protocol: Protocol = QUICK,
    cache: Path | None = None,
) -> train_eval.Classifiers:
    """One classifier trained on all real training images: whose features measure, and choose.

    Args:
        data: the real data.
        network, seed, device, protocol: as in `train_eval.Training`.
        cache: a file to read it from, or to write it to where there is none yet.

    Raises:
        InputError: if the file holds another classifier, or none.
    """
    device = device or pick_device()
    identity = {"fingerprint": data.fingerprint, "network": network, "protocol": asdict(protocol), "seed": seed}
    if cache is not None and cache.exists():
        tensors, meta = read_tensors(cache)
        other = ", ".join(
            f"{name} {meta.get(name)} instead of {own}" for name, own in identity.items() if meta.get(name) != own
        )
        require(not other, f"{cache} holds another classifier: {other}. Name another file, or remove this one.")
        net, params, buffers = train_eval.initialise(network, data, [0], seed, device)
        params, buffers = ({name: tensors[name].to(device) for name in state} for state in (params, buffers))
        return train_eval.Classifiers(net, params, buffers, Preprocess.fit(data).to(device), [], [])
    classifier = train_eval.train(
        data.train_images,
        data.train_labels,
        data,
        protocol=protocol,
        network=network,
        runs=[0],
        seed=seed,
        device=device,
    )
    if cache is not None:
        write_tensors(cache, classifier.params | classifier.buffers, identity)
    return classifier


def classifier_frechet(images: Tensor, data: ImageData, classifier: train_eval.Classifiers | None = None) -> float:
    """Frechet distance between images and the real training images, in the features of a classifier of real data.

    Not FID: the features are not Inception's, so the values compare within one dataset only. As with FID, a smaller
    set has a larger distance, whatever its images; compare sets of one size.

    Args:
        images: pixels, uint8 or float on the 0..1 scale, (N, C, H, W), N >= 2.
        data: the real data.
        classifier: what `real_classifier(data)` gives; None trains it.

    Raises:
        InputError: for fewer than two images, or images of another shape than the data's.
    """
    require(len(images) >= 2, f"a Frechet distance needs at least 2 images, got {len(images)}.")
    classifier = classifier or real_classifier(data)
    net = classifier.network(0)
    ours, real = (moments(features(net, pixels, classifier.preprocess)) for pixels in (images, data.train_images))
    return frechet_distance(*ours, *real)


@torch.inference_mode()
def features(net: nn.Module, images: Tensor, preprocess: Preprocess) -> Tensor:
    """Features float32 (N, D) of pixels (N, C, H, W), on the network's device."""
    device = next(net.parameters()).device
    with autocast(device):
        parts = [net.features(preprocess.forward(x.to(device))) for x in images.split(train_eval.TEST_CHUNK)]
    return torch.cat(parts).float()
