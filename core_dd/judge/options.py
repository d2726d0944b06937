"""The options of the commands that judge. No torch."""

from dataclasses import dataclass

from core_dd.data.options import DataConfig
from core_dd.errors import pick, require

REAL = "real"
"""The name of the full real training set where a set is asked for."""


@dataclass(kw_only=True)
class EvaluateConfig(DataConfig):
    """Train classifiers on a set from scratch and score them on the real test images."""

    set: str = REAL
    """The distilled set (a file, a folder of shards, a run folder), or "real" for the full real training set."""
    normalised_by: str | None = None
    """For a file of other authors' code: what its images are normalised by: mean_std (of the data), cifar10_mean_std,
    zca, or pixels (nothing: the 0..1 scale); default: what that code always does, else the command asks."""
    factor: int | None = None
    """For such a file: every image holds factor x factor smaller ones (IDC: 2); default: likewise."""
    name: str | None = None
    """What reports call the set; default: its method and ipc."""
    protocol: str = "dm"
    """How to train, as published: dm, dc, challenge, idm, mtt, idc, idc_mnist, idc_svhn_ipc1, datadam_paper,
    datadam_code; or ours: quick."""
    network: str = "convnet3"
    """What to train: convnet1 to convnet6, with suffixes such as _bn, _w256, _maxpool."""
    runs: int | None = None
    """Classifiers; default: as many as the protocol says (5; challenge 3)."""
    epochs: int | None = None
    """Shorten a protocol that counts passes to this E; the score is marked smoke, its protocol renamed (dm_60_epochs),
    and never ranked."""
    steps: int | None = None
    """Shorten any protocol to this many steps; likewise (challenge_4000_steps)."""
    smoke: bool = False
    """Mark the score as smoke although the protocol is whole, because the set itself comes from a shortened run."""
    best_of_test: bool = False
    """Beside the score, whose classifiers are tested once, at their end, also record best_of_test: what the protocol's
    authors report, who test more often and choose the best by the test set. For idc these are 4 tests along the
    training; for mtt, idm and datadam_code tests of every checkpoint in the run folder that `set` names, each of which
    takes as long as the score. It is shown in a column of its own and never ranked by."""
    fidelity: bool = False
    """Also measure how far the set's images are from the real ones in the features of a classifier trained on the real
    data (`network`, protocol quick): classifier_frechet, and moment1_distance, moment2_distance, moment3_distance, the
    distances of M3D's table 1. The paper does not name its network; this one is our choice."""
    bf16: bool = True
    """Compute in bf16 where the hardware does it faster; the classifiers' weights stay in fp32."""
    seed: int = 0
    """Of the classifiers' initial weights, batches and augmentation."""
    device: str | None = None
    """cpu, cuda, cuda:1, ...; default: cuda where there is one."""
    out: str | None = None
    """The file to write; default: scores.json beside the set, for "real" in the next folder under runs/DATA-real/."""
    dry_run: bool = False
    """Check everything, print the resolved config and how long the training is, stop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        from core_dd.data.preprocess import PREPROCESSES
        from core_dd.judge import habits
        from core_dd.judge.protocols import PROTOCOLS
        from core_dd.sets import foreign

        if self.normalised_by not in (None, foreign.PIXELS):
            pick({**PREPROCESSES, foreign.PIXELS: None}, self.normalised_by, "normalised_by")
        require(self.factor is None or self.factor >= 1, f"factor must be >= 1, got {self.factor}.")
        require(self.runs is None or self.runs >= 1, f"runs must be >= 1, got {self.runs}.")
        pick(PROTOCOLS, self.protocol, "protocol").shortened(self.epochs, self.steps)
        if self.best_of_test:
            habits.habit(self.protocol)


@dataclass(kw_only=True)
class SubmitConfig(DataConfig):
    """Write, reread, check and score a submission to the ECCV 2024 challenge."""

    set: str = ""
    """The distilled set: 10 images per class for track 1, anything sampled inside the budget for track 2."""
    track: int = 1
    """1 (10 images per class) or 2 (as many as the generator drew; the fullest equal number per class is handed in)."""
    out: str = ""
    """The folder to write into."""
    epochs: int | None = None
    """Score by a challenge protocol shortened to this many passes, and say so; default: the full protocol."""
    steps: int | None = None
    """Score by a challenge protocol shortened to this many steps, and say so."""
    bf16: bool = True
    """Score in bf16 where the hardware does it faster; the classifiers' weights stay in fp32."""
    seed: int = 0
    """Of the scoring."""
    device: str | None = None
    """cpu, cuda, cuda:1; default: cuda where there is one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        from core_dd.judge.protocols import CHALLENGE

        require(bool(self.set), "which set? Pass --set FILE_OR_FOLDER.")
        require(bool(self.out), "where to? Pass --out FOLDER.")
        require(self.track in (1, 2), f"track must be 1 or 2, got {self.track}.")
        CHALLENGE.shortened(self.epochs, self.steps)
