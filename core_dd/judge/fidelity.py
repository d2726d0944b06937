"""How close a set's images are to the real ones: distances of features."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core_dd import files, records
from core_dd.data.cache import cache_folder, kept
from core_dd.data.images import ImageData
from core_dd.data.preprocess import Preprocess
from core_dd.data.real import RealData
from core_dd.errors import require
from core_dd.judge import training
from core_dd.judge.moments import moment_distance
from core_dd.judge.networks import NetworkLike, build_network, is_foreign, name_of, require_shown
from core_dd.judge.protocols import QUICK, Protocol
from core_dd.judge.unfinished import Damaged, beside
from core_dd.notes import note
from core_dd.records import same_shape
from core_dd.sets.distilled import read_tensors, write_tensors
from core_dd.sets.labels import hardened
from core_dd.speed import autocast, prepare_device
from core_dd.wrappers import unwrapped

MOMENTS = ("moment1_distance", "moment2_distance", "moment3_distance")
"""The distances of the means, variances and third central moments, as scores and the papers' tables call them."""


def frechet_distance(mu1: Tensor, cov1: Tensor, mu2: Tensor, cov2: Tensor) -> float:
    """Squared Wasserstein-2 distance of two Gaussians (Dowson & Landau 1982; [Heusel et al., NeurIPS
    2017](https://arxiv.org/abs/1706.08500), eq. 6).

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

    Examples:
        >>> import torch
        >>> mean, cov = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
        >>> round(float(frechet_distance(mean, cov, mean + 3, cov)), 6)
        18.0
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


def frechet_of_features(a: Tensor, b: Tensor) -> float:
    """`frechet_distance` of the moments of features, without covariances: cheap for few images of many dimensions.

    With X and Y the centred features over the root of their number less one, the covariances are X'X and Y'Y, and the
    trace of the root of their product is the sum of the singular values of XY'.

    Args:
        a, b: features, (N, D) and (M, D).

    Raises:
        InputError: for fewer than two rows.
    """
    require(min(len(a), len(b)) >= 2, f"a covariance needs at least 2 images, got {min(len(a), len(b))}.")
    means = [x.double().mean(0) for x in (a, b)]
    x, y = ((x.double() - mean) / (len(x) - 1) ** 0.5 for x, mean in zip((a, b), means, strict=True))
    cross = torch.linalg.svdvals(x @ y.mT).sum()
    return float((means[0] - means[1]).square().sum() + x.square().sum() + y.square().sum() - 2 * cross)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and unbiased covariance (D, D) of features (N, D), in float64.

    Raises:
        InputError: for fewer than two rows.
    """
    require(len(features) >= 2, f"a covariance needs at least 2 images, got {len(features)}.")
    return features.double().mean(0), features.double().T.cov()


def real_classifier(
    data: ImageData,
    network: NetworkLike = "convnet3",
    seed: int = 0,
    device: torch.device | None = None,
    protocol: Protocol = QUICK,
    cache: Path | None = None,
    bf16: bool = True,
    unfinished: Path | None = None,
) -> training.Classifiers:
    """One classifier trained on all real training images: whose features measure, and choose.

    Args:
        data: the real data.
        network, seed, device, protocol, bf16: as in `training.Training`.
        cache: a file to read it from, or to write it to where there is none yet.
        unfinished: a file that keeps it while it trains, see `training.train`; by default beside `cache`.

    Raises:
        InputError: if the file holds another classifier, one of other training images, or none.
    """
    device = device or prepare_device()
    identity = classifier_identity(network, seed, protocol)
    if cache is not None and cache.exists():
        tensors, meta = read_tensors(cache)
        data.check_origin(meta, f"{cache} holds a classifier", "Name another file, or remove this one.")
        other = ", ".join(
            f"{name} {meta.get(name)} instead of {own}"
            for name, own in identity.items()
            if _complete(meta.get(name)) != own
        )
        require(not other, f"{cache} holds another classifier: {other}. Name another file, or remove this one.")
        net, params, buffers = training.initialise(network, data, [0], seed, device)
        tensors = tensors if params.keys() <= tensors.keys() else unwrapped(tensors)
        with records.restoring(str(cache), "Name another file, or remove this one."):
            params, buffers = (
                {name: same_shape(tensors[name], own, name).to(device) for name, own in state.items()}
                for state in (params, buffers)
            )
        finite = all(bool(torch.isfinite(tensor).all()) for tensor in (params | buffers).values())
        require(finite, f"{cache} holds a classifier whose weights are not finite. Remove it, to train it anew.")
        return training.Classifiers(net, params, buffers, Preprocess.fit(data).to(device), [], [], bf16)
    unfinished = unfinished or (cache and beside(cache))
    classifier = training.train(
        data.train_images,
        data.train_labels,
        data,
        unfinished=unfinished,
        protocol=protocol,
        network=network,
        runs=[0],
        seed=seed,
        device=device,
        bf16=bf16,
    )
    if cache is not None:
        _write_classifier(cache, classifier, data, identity)
    if unfinished is not None:
        files.remove(unfinished)
    return classifier


def check_features(network: NetworkLike, data: RealData) -> None:
    """Refuse, before any work, a network that cannot take the images of `data`, or shows no features to measure in.

    Raises:
        InputError: for such a network.
    """
    require_shown(build_network(network, data.shape, data.num_classes), "features", network, "a distance of features")


def kept_classifier(
    data: ImageData, network: str, seed: int, device: torch.device, protocol: Protocol = QUICK, bf16: bool = True
) -> training.Classifiers:
    """A classifier trained on all real training images: the first time, then read from the cache folder; networks of
    other code, which may change under one name, are trained each time."""
    trained = partial(real_classifier, data, network, seed, device, protocol, bf16=bf16)
    if is_foreign(network):
        return trained()
    how = ("" if protocol == QUICK else f"-{protocol.name}") + ("" if bf16 else "-fp32")
    name = f"classifier-{data.fingerprint}-{data.training_digest}-{network}{how}-seed{seed}.safetensors"

    def made() -> training.Classifiers:
        unfinished = beside(cache_folder() / name)
        try:
            return trained(unfinished=unfinished)
        except Damaged as error:
            note(f"note: the classifier is trained from the start, because {error}")
            files.remove(unfinished)
            return trained(unfinished=unfinished)

    return kept(
        name,
        make=made,
        read=lambda place: trained(cache=place),
        write=lambda place, made: _write_classifier(place, made, data, classifier_identity(network, seed, protocol)),
    )


def classifier_identity(network: NetworkLike, seed: int, protocol: Protocol = QUICK) -> dict[str, Any]:
    """What tells a classifier of the same data from another."""
    return {"network": name_of(network), "protocol": asdict(protocol), "seed": seed}


def _complete(said: Any) -> Any:
    """A part of a classifier's identity as it was written, in a protocol's place with what protocols had not then."""
    return {**asdict(Protocol(name="")), **said} if isinstance(said, Mapping) else said


def _write_classifier(
    place: Path, classifier: training.Classifiers, data: ImageData, identity: Mapping[str, Any]
) -> None:
    """Write a file that `real_classifier` reads."""
    write_tensors(place, classifier.params | classifier.buffers, {**data.origin, **identity})


def classifier_frechet(images: Tensor, data: ImageData, classifier: training.Classifiers | None = None) -> float:
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
    ours, real = _compared(images, data, classifier)
    return frechet_distance(*moments(ours), *moments(real))


def moment_distances(features: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor) -> dict[str, float]:
    """How far the moments of a set's features are from the real ones', class by class ([Zhang et al., M3D, AAAI
    2024](https://arxiv.org/abs/2312.15927), table 1).

    For the orders 1, 2 and 3 the mean over classes of `core_dd.judge.moments.moment_distance`. A single image of a
    class has no spread: at one image per class, orders 2 and 3 are the size of the real moments, whatever the set.

    Args:
        features: of the set's images, (M, D).
        labels: int64 (M,), or float (M, K) soft; an image is of the class its label is largest for.
        real, real_labels: the same of the real images, (N, D) and int64 (N,).

    Returns:
        By the names in `MOMENTS`. Classes of which the set shows no image are left out; that is said on stderr.

    Raises:
        InputError: if the set shows no class that is real.
    """
    labels, real_labels = hardened(labels).to(features.device), real_labels.to(real.device)
    classes, shown = real_labels.unique().tolist(), set(labels.unique().tolist())
    common = [k for k in classes if k in shown]
    require(bool(common), "moment distances need images of the real classes, the set has none.")
    if len(common) < len(classes):
        note(
            f"moment distances are over {len(common)} of {len(classes)} classes: the set shows no image of the others."
        )
    by_class = []
    for k in common:
        theirs, ours = real[real_labels == k][None], features[labels == k][None]
        by_class.append(torch.cat([moment_distance(theirs, ours, order) for order in (1, 2, 3)]))
    return dict(zip(MOMENTS, torch.stack(by_class).mean(0).tolist(), strict=True))


def distances(
    images: Tensor, labels: Tensor, data: ImageData, classifier: training.Classifiers | None = None
) -> dict[str, float]:
    """All distances of a set from the real training images, by name: `classifier_frechet` and `MOMENTS`.

    M3D does not say in which network's features its moments are; both are measured in those of one classifier trained
    on the real data, so the values compare within one dataset and network, and with the paper's only in order and
    ratio. The features are computed once for all.

    Args:
        images, labels: of the set, decoded, as classifiers train on them: (M, C, H, W) as for `classifier_frechet`;
            int64 (M,), or float (M, K) soft.
        data: the real data.
        classifier: what `real_classifier(data)` gives; None trains it.

    Raises:
        InputError: for fewer than two images, or images of another shape than the data's.
    """
    ours, real = _compared(images, data, classifier)
    return distances_of(ours, labels, real, data.train_labels)


def distances_of(features: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor) -> dict[str, float]:
    """What `distances` says, of features at hand; arguments as for `moment_distances`."""
    frechet = frechet_distance(*moments(features), *moments(real))
    return {"classifier_frechet": frechet} | moment_distances(features, labels, real, real_labels)


def _compared(images: Tensor, data: ImageData, classifier: training.Classifiers | None) -> tuple[Tensor, Tensor]:
    """The features of a set's and of the real training images."""
    require(len(images) >= 2, f"a Frechet distance needs at least 2 images, got {len(images)}.")
    classifier = classifier or real_classifier(data)
    net = classifier.network(0)
    ours, real = (
        features(net, pixels, classifier.preprocess, classifier.bf16) for pixels in (images, data.train_images)
    )
    return ours, real


@torch.inference_mode()
def features(net: nn.Module, images: Tensor, preprocess: Preprocess, bf16: bool = True) -> Tensor:
    """Features float32 (N, D) of pixels (N, C, H, W), on the network's device; in bf16 where it pays, if at all."""
    device = next(net.parameters()).device
    with autocast(device, bf16):
        parts = [net.features(preprocess.forward(x.to(device))) for x in images.split(training.TEST_CHUNK)]
    return torch.cat(parts).float()


@torch.inference_mode()
def probabilities(net: nn.Module, images: Tensor, preprocess: Preprocess) -> Tensor:
    """The probability of each class, float32 (N, K), of pixels (N, C, H, W), on the network's device; never in bf16,
    whose steps are wide where a classifier is sure."""
    device = next(net.parameters()).device
    logits = [net(preprocess.forward(x.to(device))) for x in images.split(training.TEST_CHUNK)]
    return torch.cat(logits).softmax(1)
