"""The options of the commands of this track. No torch."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from core_dd.data.options import DataConfig
from core_dd.errors import about, above, at_least, brief, needed, require
from core_dd.judge.options import CHOOSER_CHOICES, NETWORK_CHOICES, PROTOCOL_CHOICES
from core_dd.options import Options, RunConfig, option

if TYPE_CHECKING:
    from core_dd.data.real import RealData
    from gen_dd.guidance import Guide

PRESET_CHOICES = MappingProxyType(
    {
        "tiny": "0.6 M weights, for 8x8 digits on a CPU",
        "mini": "3.4 M, for 28x28 on a CPU",
        "cifar10-small": "44 M, the official one of CIFAR-10",
        "imagenet64-mid": "131 M, the official one of ImageNet 64x64",
        "imagenet64-large": "287 M, the official larger one of ImageNet 64x64",
    }
)
"""Sizes of a U-ViT (`gen_dd.uvit.PRESETS`)."""

OPTIMIZER_CHOICES = MappingProxyType(
    {
        "adamw": "AdamW, as published",
        "muon": "Muon on the matrices inside the blocks, AdamW on the rest, both at lr and weight_decay",
    }
)
"""Optimisers of a training (`gen_dd.recipe.OPTIMIZERS`)."""

TIME_CHOICES = MappingProxyType({"uniform": "all as often, as published", "logit_normal": "fewer at both ends"})
"""Which times, that is noise levels, are learnt from (`gen_dd.recipe.TIMES`)."""

WEIGHTING_CHOICES = MappingProxyType(
    {"none": "all as much, as published", "min_snr": "less where there is hardly any noise (Hang et al., ICCV 2023)"}
)
"""How much each time counts in the loss (`gen_dd.recipe.WEIGHTINGS`)."""

SOLVER_CHOICES = MappingProxyType(
    {
        "dpmpp_2m": "DPM-Solver++ of second order, multistep",
        "dpmpp_3m": "the same of third order",
        "unipc": "UniPC of second order",
        "ddim": "DDIM, of first order",
        "dpm_fast": "the official code's DPM-Solver-fast",
        "consistency": "1 to 8 steps of a consistency model, as gendd tune makes them",
    }
)
"""How noise becomes images (`gen_dd.solvers.SOLVERS`)."""

GUIDE_CHOICES = MappingProxyType(
    {
        "mgd3": "towards real medoids, one per slot (MGD3, ICML 2025)",
        "coda": "the same with CoDA's weight (ICLR 2026)",
        "repulsion": "the images of a group push each other apart (after particle guidance, ICLR 2024)",
        "classifier": "up the gradient of a classifier of the real data (Dhariwal & Nichol 2021)",
    }
)
"""Training-free guides (`gen_dd.guidance.GUIDES`)."""

STEPS, FEW_STEPS = 10, 2
"""Network evaluations per image where none are asked for: of a solver, of a consistency model. On digits and
Fashion-MNIST more do not make a pool better, and fewer images do make it worse (docs/results.md)."""

MOST_STEPS = 8
"""The most of a consistency model: beyond, a solver of the diffusion model itself draws better."""

MOST_STAGES = 16
"""Of a tuning: each moves the two noise levels twice as close, and fp32 has 24 bits."""

PLAN = "plan"
"""The heading of what is chosen by trials."""

FILTER_NETWORK = "convnet3"
"""The filter's classifier where none is asked for."""

FILTER = "filter"
"""The heading of what is drawn again."""

CHECKS = "what is learnt"
"""The heading of what looks at a model while it learns, and afterwards."""


@dataclass(kw_only=True)
class TrainConfig(RunConfig, DataConfig):
    """Train a class-conditional U-ViT diffusion model.

    On several processes: accelerate launch scripts/train_uvit.py ... (GPUs), or
    torchrun --nproc_per_node 2 scripts/train_uvit.py ... (also CPUs). With the network split over them (FSDP):
    accelerate launch --config_file configs/accelerate/fsdp_four_gpus.yaml scripts/train_uvit.py ...
    """

    GROUP: ClassVar[str] = "model and training"
    HOME: ClassVar[str] = "gen"
    OBJECTIVE: ClassVar[str] = "noise"  # of gen_dd.objectives.OBJECTIVES
    TF32: ClassVar[bool] = False  # of what is computed in fp32 on CUDA
    RENAMED: ClassVar[Mapping[str, str]] = MappingProxyType({"steps": "iterations"})

    preset: str = option("tiny", choices=PRESET_CHOICES)
    """Size of the network. Image size and channels come from the data."""
    patch_size: int | None = None
    """Side of a patch; default: the preset's."""
    init_from: str | None = None
    """Start from other weights: an official checkpoint (.pth), a model folder or a training checkpoint, whose averaged
    weights are taken; the network is then theirs, not the preset's. Labels of another dataset are dropped, positions
    resized; what was kept is said."""
    num_heads: int | None = None
    """Attention heads of the network in the file of init_from, which does not tell them. Default: those of the official
    network of that width, for another width one for every 64 channels; the number taken is said."""
    iterations: int = option(10000, free_on_resume=True)
    """Optimiser steps."""
    max_seconds: float | None = option(None, free_on_resume=True)
    """Stop after this many seconds of training steps, over all calls of the run, if they come first; imports,
    compiling, pictures, evaluations and checkpoints are not counted. Such a run cannot be repeated exactly: the clock
    ends it, and with anneal sets its learning rate."""
    chunk_seconds: float | None = option(None, free_on_resume=True)
    """Stop this call after so many seconds of training steps, counted as for max_seconds, unfinished, for --resume to
    go on: for machines lent by the quarter hour."""
    batch_size: int = 128
    """Images per step, over all processes and accumulation steps."""
    accumulate: int = option(1, group="speed", free_on_resume=True)
    """Forward and backward passes that make up one step: memory for time, to the same result."""
    optimizer: str = option("adamw", choices=OPTIMIZER_CHOICES)
    """What steps the weights."""
    lr: float = 2e-4
    """Peak learning rate."""
    betas: tuple[float, float] = (0.99, 0.999)
    """AdamW's moment decays."""
    weight_decay: float = 0.03
    """Weight decay, on every parameter."""
    warmup: int = 500
    """Steps over which the learning rate rises linearly."""
    anneal: float = 0.0
    """The last part of the training, from 0 to 1, in which the learning rate falls linearly to 0; of the steps, or of
    max_seconds where those end first."""
    growth: int = 1
    """Where anneal has the learning rate fall, let the batch grow instead, up to so many times batch_size, in as many
    passes; what is left of the fall then follows (Smith et al., ICLR 2018). A step takes as much longer, and streamed
    images as many workers for each."""
    time_sampling: str = option("uniform", choices=TIME_CHOICES)
    """Which times, that is noise levels, are learnt from."""
    weighting: str = option("none", choices=WEIGHTING_CHOICES)
    """How much each time counts in the loss."""
    grad_clip: float | None = None
    """Clip the gradient's norm to this; default: no clipping."""
    label_dropout: float = 0.1
    """Probability that an image is learnt without its label, which classifier-free guidance needs."""
    dropout: float = 0.0
    """Probability that a value is dropped, of what attention and MLP of every block add (Vaswani et al., 2017); EDM
    trains CIFAR-10 with 0.13, U-ViT with none."""
    augment: float = 0.0
    """Probability of each of six transforms of an image: flips, scale, rotation, anisotropic scale, translation. The
    network is told which, so that it draws none of them: EDM's non-leaky augmentation (Karras et al., NeurIPS 2022,
    appendix F.2), there 0.12."""
    supervise: float = 0.0
    """Let the middle block predict the noise, too, by a layer that is not kept, and count its error so much: deep
    supervision (Lee et al., 2015; of flow models Shin et al., ICCV 2025)."""
    align: float = 0.0
    """Let the middle block know what EfficientNet-Lite0 (`gendd[features]`) sees in the clean image, by a projection
    that is not kept, and count 1 - their cosine so much: REPA (Yu et al., ICLR 2025), there 0.5."""
    neon: str | None = None
    """A pool that gendd sample drew from the model of init_from: learn from it instead of the data, and save weights as
    far on the other side of init_from's (Neon, negative extrapolation from self-training; Alemohammad et al., ICLR
    2026). Wants few steps: on CIFAR-10 6000 samples and 1.75 % of the training."""
    neon_weight: float = 1.0
    """How far on the other side, in steps of neon's length."""
    ema_decay: float = 0.9999
    """Decay of the moving average of the weights that samples are drawn with."""
    ema_warmup: bool = True
    """Let the average begin short, so that the first weights do not rule a short training: after n steps its decay is
    min(ema_decay, (1 + n) / (10 + n)), as in TensorFlow's ExponentialMovingAverage and diffusers' EMAModel. Off: it is
    ema_decay from the first step on, as published."""
    stream: bool | None = option(None, group="speed", free_on_resume=True)
    """Decode the images while training, by workers, to the same result, instead of holding all of them decoded; for
    folder:, tiny_imagenet:, parquet: and hf:. Default: where they would take a quarter of the machine's or the GPU's
    memory."""
    workers: int | None = option(None, group="speed", free_on_resume=True)
    """Decoding workers of each process; default: its share of the CPU cores, at most 8."""
    hflip: bool | None = None
    """Mirror half of the images; default: where the dataset's labels allow it."""
    bf16: bool = option(True, group="speed")
    """Compute in bf16 where the hardware does it faster; weights, average and optimiser stay in fp32."""
    compile: bool = option(True, group="speed")
    """Compile the network where that earns back what it takes: within max_seconds or, for a run without, in all of its
    steps, however many a resumed call has left, so that it repeats the uninterrupted one exactly."""
    checkpointing: bool = option(False, group="speed", free_on_resume=True)
    """Keep only the inputs of the blocks for the backward pass: a third more time for far less memory."""
    device: str | None = None
    """cpu or cuda; default: cuda where there is one. CUDA_VISIBLE_DEVICES says which GPUs."""
    out: str | None = None
    """The run folder; default: the next number under runs/DATA-uvit-PRESET/."""
    grid_every: int = option(2000, group="run", free_on_resume=True)
    """Steps between pictures of samples of the averaged weights; 0: none."""
    eval_every: int = option(0, group=CHECKS, free_on_resume=True)
    """Steps between evaluations of samples of the averaged weights, by which the best model is kept; 0: none."""
    eval_images: int = option(1000, group=CHECKS, free_on_resume=True)
    """Samples compared with the training images in each evaluation (FID; the literature takes 50000)."""
    eval_steps: int = option(50, group=CHECKS, free_on_resume=True)
    """Network evaluations per such sample."""
    eval_solver: str = option("dpmpp_2m", group=CHECKS, choices=SOLVER_CHOICES, free_on_resume=True)
    """How noise becomes such samples."""
    eval_ipc: int = option(0, group=CHECKS)
    """Also train a ConvNet on this many samples per class and test it on the validation split, which then chooses the
    best model; 0: no. Wants val_fraction."""
    eval_network: str = option("convnet3", group=CHECKS, choices=NETWORK_CHOICES, others=True)
    """That ConvNet; also the classifier of the real data whose features stand in for Inception's, and which checks what
    was learnt."""
    check_images: int = option(300, group=CHECKS, free_on_resume=True)
    """Samples drawn after the training, of which a classifier of the real data says whether anything was learnt: the
    share whose label it recognises, and their classifier_frechet, go into learnt.json and the model's card. It takes
    some seconds on small images, which no time limit counts. 0: no check."""
    val_fraction: float = option(0.0, group="data")
    """The part of each class's training images kept aside as the validation split."""
    inception_weights: str | None = option(None, group=CHECKS, free_on_resume=True)
    """A file of torch-fidelity's Inception weights, for FID; default: its download; none: do without. Without them the
    Frechet distance in a classifier's features is measured, under its own name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.num_heads is None or (self.num_heads >= 1 and self.init_from is not None),
            f"num_heads is of the network in init_from and must be >= 1, got {self.num_heads} and init_from "
            f"{self.init_from}. Leave it out, or choose another preset.",
        )
        kind, _, index = (self.device or "").partition(":")
        require(
            not index,
            f"device {self.device}: each process of a training takes the next GPU that it sees. "
            f"Set CUDA_VISIBLE_DEVICES={index} and pass --device {kind}.",
        )
        at_least(self, 1, "iterations", "batch_size", "accumulate", "eval_steps", "growth")
        require(
            self.growth == 1 or self.anneal > 0,
            f"growth {self.growth} is of the part in which anneal lets the learning rate fall. Pass --anneal 0.5, too.",
        )
        require(
            self.neon is None or self.init_from is not None,
            "neon leads away from own samples of the model in init_from. Pass --init_from RUN, from which they were "
            "drawn.",
        )
        require(
            self.neon is None or self.supervise == self.align == 0,
            "neon leads away from what it learns, and so from what the middle block is taught. Leave out supervise and "
            "align.",
        )
        require(0 <= self.augment <= 1, f"augment must be in [0, 1], got {self.augment}.")
        at_least(self, 0, "supervise", "align")
        above(self, 0, "neon_weight")
        for name in ("label_dropout", "dropout", "ema_decay"):
            require(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1), got {getattr(self, name)}.")
        require(0 <= self.anneal <= 1, f"anneal must be in [0, 1], got {self.anneal}.")
        above(self, 0, "lr", "max_seconds", "chunk_seconds", "grad_clip")
        at_least(self, 0, "grid_every", "eval_every", "eval_ipc", "warmup", "check_images", "workers")
        at_least(self, 2, "eval_images")
        at_least(self, 0, "weight_decay")
        at_least(self, 1, "patch_size")
        require(all(0 <= beta < 1 for beta in self.betas), f"betas must be in [0, 1), got {self.betas}.")
        require(0 <= self.val_fraction < 1, f"val_fraction must be in [0, 1), got {self.val_fraction}.")
        require(
            self.eval_ipc == 0 or self.val_fraction > 0,
            "eval_ipc wants a validation split. Pass --val_fraction 0.1, or leave it out.",
        )
        require(
            self.eval_ipc == 0 or self.eval_every > 0 or self.resume,
            f"eval_ipc {self.eval_ipc} is of evaluations, and there are none. Pass --eval_every 1000, or --eval_ipc 0.",
        )
        require(
            (self.eval_solver == "consistency") == (self.OBJECTIVE == "consistency"),
            f"eval_solver {self.eval_solver} cannot draw with the model that this command trains: consistency is the "
            "one of gendd tune, the others are those of gendd train.",
        )
        with about("eval_steps"):
            check_steps(self.eval_solver, self.eval_steps)

    @property
    def WORD(self) -> str:
        """What a run folder is called after the data."""
        return f"uvit-{self.preset}"

    def training_data(self) -> "RealData":
        """The data this config names, in memory or streamed."""
        from core_dd.data.streaming import load_stream, too_large
        from core_dd.speed import pick_device

        stream = self.stream
        require(
            not (stream and self.test_fraction),
            "data are streamed with a test split of their own: leave out test_fraction.",
        )
        if stream is None and not self.test_fraction:
            stream = too_large(self.data, self.image_size, pick_device(self.device))
        if not stream:
            return self.load_data(self.seed, self.val_fraction)
        with about(f"--data {self.data}"):
            return load_stream(
                self.data,
                image_size=self.image_size,
                val_fraction=self.val_fraction,
                limit_per_class=self.limit_per_class,
                seed=self.seed,
                workers=self.workers,
            )


@dataclass(kw_only=True)
class TuneConfig(TrainConfig):
    """Tune a trained U-ViT into a consistency model, which draws in 1, 2 or 4 steps what took a solver 10 to 50.

    Easy Consistency Tuning (Geng et al., ICLR 2025): the same network learns to map two noise levels of one image to
    the same end. Draw with it by gendd sample --solver consistency --steps 2. On several processes:
    torchrun --nproc_per_node 2 -m gen_dd.tune ..., or accelerate launch -m gen_dd.tune ...
    """

    OBJECTIVE: ClassVar[str] = "consistency"
    HOME: ClassVar[str] = "tune"
    TF32: ClassVar[bool] = True
    HIDDEN: ClassVar[frozenset[str]] = frozenset(
        {"preset", "patch_size", "time_sampling", "weighting", "supervise", "align", "neon", "neon_weight"}
    )

    init_from: str | None = None
    """The run folder of gendd train whose model is tuned; also a model folder, a training checkpoint (its averaged
    weights are taken) or an official checkpoint (.pth). The network is its."""
    stages: int = 8
    """Parts of the training, as long as each other; from each to the next the two noise levels move twice as close. A
    short one wants fewer (results/tuning_stages: 3 or 4 of 600 steps)."""
    iterations: int = option(10000, free_on_resume=True)
    """Optimiser steps, which decide how long a stage is: a run that is resumed with more goes back to the stage of the
    part of them that it has done."""
    lr: float = 1e-4
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's moment decays."""
    weight_decay: float = 0.0
    """Weight decay, on every parameter."""
    warmup: int = 100
    """Steps over which the learning rate rises linearly."""
    ema_decay: float = 0.999
    """Decay of the moving average of the weights that samples are drawn with."""
    eval_steps: int = option(2, group=CHECKS, free_on_resume=True)
    """Network evaluations per sample of an evaluation."""
    eval_solver: str = option("consistency", group=CHECKS, choices=SOLVER_CHOICES, free_on_resume=True)
    """How noise becomes such samples."""
    bf16: bool = option(False, group="speed")
    """Compute in bf16 where the hardware does it faster. Its 8 bits are coarser than the two noise levels are apart in
    the last stages, which then teach rounding (on Fashion-MNIST, results/tuning_precision: after 3500 steps 37 % of the
    samples were recognised, in fp32 57 % after 400); TF32's 11, by which fp32 multiplies on CUDA here, are enough."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.init_from is not None, "tune what? Pass --init_from RUN, a run folder of gendd train.")
        require(
            self.stages >= 1 and (self.stages <= MOST_STAGES or self.resume),
            f"stages must be from 1 to {MOST_STAGES}, got {self.stages}: in fp32, the two noise levels are no further "
            "apart in later ones than rounding is.",
        )
        require(
            self.time_sampling == "uniform" and self.weighting == "none",
            "time_sampling and weighting belong to gendd train: tuning has noise levels and weights of its own. Leave "
            "them out.",
        )
        require(
            self.supervise == 0 and self.align == 0 and self.neon is None,
            "supervise, align and neon belong to gendd train: tune what they made. Leave them out.",
        )

    @property
    def WORD(self) -> str:
        """What a run folder is called after the data."""
        return "consistency"


@dataclass(kw_only=True)
class SampleConfig(Options):
    """Draw labelled, class-balanced images from a trained U-ViT, as many as a time budget allows or a fixed number.

    With several processes (torchrun --nproc_per_node N scripts/sample_timed.py ..., or accelerate launch) each writes
    its own shards into the same folder; the index merges them.
    """

    GROUP: ClassVar[str] = "images"

    model: str = ""
    """The trained model: a run folder of `gendd train`, the model folder inside it, or a saved `UViTPipeline`."""
    out: str = option("", group="run")
    """The folder for the shards, index.json, grid.png and, once all is drawn, summary.txt."""
    budget: str | None = None
    """Wall-clock time for the whole command, imports and loading included: 20s, 10m, 1h or seconds. Never overrun but
    by a guide's preparation and the training of a filter's classifier, which count and are not stopped."""
    num_per_class: int | None = None
    """Images per class; beside a budget, at most so many."""
    steps: int | str | None = None
    """Network evaluations per image, of a consistency model 1 to 8; or auto, for the others: the most, from 10 to 50,
    with which num_per_class images of every class fit into the budget. Without num_per_class, room is made for 500 per
    class, and the whole budget is drawn. Default: 10, of a consistency model 2."""
    solver: str = option("dpmpp_2m", choices=SOLVER_CHOICES)
    """How noise becomes images."""
    cfg_scale: float = 0.0
    """Classifier-free guidance s in cond + s (cond - null); 0 is off. Above 0 every step costs two evaluations."""
    cfg_interval: tuple[float, float] | None = None
    """The times, low high in [0, 1] with 1 the pure noise, between which cfg_scale applies; default: always. Steps
    outside cost one evaluation."""
    guide: str | None = option(None, choices=GUIDE_CHOICES)
    """A training-free guide of the images. Default: none."""
    guide_scale: float | None = None
    """The guide's weight; default: 0.1 (mgd3, repulsion), 0.05 (coda), 1 (classifier)."""
    guide_until: float | None = None
    """The guide acts while t > guide_until, from 1 (noise) to 0 (image); default: 0.5, 0.1 (coda), 0 (classifier)."""
    guide_slots: int | None = None
    """Medoids per class, or images in a group; default: 10."""
    guide_data: str | None = None
    """The real data that a guide and the filter look at; default: what the model's card says it was trained on."""
    expansion: float | None = None
    """Multiply the noise that images start from by this, above 1: more variance than was learnt (as GaFi does). For the
    solvers of the diffusion model; default: 1, unchanged."""
    filter: float | None = option(None, group=FILTER)
    """Draw images again that teach badly (GaFi's filter), as long as there is time, each at most 4 times, of which the
    likeliest stays: those that a classifier of the real training images does not recognise as their label, or gives it
    less probability than all but this share, in [0, 1), of the validation images it gets right; 0: no such threshold.
    The classifier is kept in the cache folder; reading it, or training it the first time, counts in the budget. Pools
    read with the accepted images first; what was rejected is said, class by class. Default: no filter."""
    filter_network: str | None = option(None, group=FILTER, choices=NETWORK_CHOICES, others=True)
    """That classifier; default: convnet3."""
    filter_protocol: str | None = option(None, group=FILTER, choices=PROTOCOL_CHOICES)
    """How it is trained, on all but the validation split of the model's training, or a tenth of each class where that
    had none; default: quick."""
    plan: str | None = option(None, group=PLAN)
    """auto: choose steps, cfg_scale and filter for the budget by short trials, of 12 settings (6 where the model
    has not learnt without labels) and of the best 3 again with 4 times the network evaluations: a classifier
    trained on what each draws is tested on a validation split of the training images. The trials count in the
    budget, of which they may take half; the rest of it is drawn, as many images as it holds. Their table is printed
    and kept in the pool's plan.json; --resume keeps the plan. A seed gives the same plan on any machine, up to
    rounding. Or the file of a plan made before, of the same model, solver and expansion."""
    plan_per_class: int = option(5, group=PLAN)
    """Images of each class in the first trial of the setting that evaluates the network most often; others draw more,
    with as many evaluations."""
    plan_network: str = option("convnet3", group=PLAN, choices=NETWORK_CHOICES, others=True)
    """The classifier that is trained on each trial's images, by protocol quick."""
    batch: int | None = option(None, group="speed")
    """Images per batch and process. Default: with a budget, the fastest size that the memory at hand allows, measured
    in the first moments; without one, 250."""
    bf16: bool = option(True, group="speed")
    """Compute in bf16 where the hardware does it faster; a consistency model draws in fp32, on CUDA with products in
    TF32, since its few steps do not average errors out."""
    compile: bool | None = option(None, group="speed")
    """Compile the network, on CUDA into graphs; under a budget only when two minutes of it are left after loading, on a
    CPU five. Default: where that earns back what it takes, in the images asked for and in the budget that is left."""
    seed: int = option(0, group="run")
    """Seed of the noise."""
    device: str | None = option(None, group="run")
    """cpu, cuda, cuda:1; default: cuda where there is one."""
    resume: bool = option(False, group="run")
    """Go on in a folder that holds shards of the same model and settings; the time they took counts, and auto steps
    stay those chosen then."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.model), "which model? Pass --model FOLDER, a run folder of gendd train.")
        require(bool(self.out), "where to? Pass --out FOLDER.")
        require(
            self.plan is None or (self.steps, self.cfg_scale, self.filter, self.guide) == (None, 0.0, None, None),
            "a plan chooses steps, cfg_scale and filter, and knows no guide. Leave these out, or leave out --plan.",
        )
        check_amount(self.num_per_class, self.budget, self.wanted_steps)
        check_steps(self.solver, self.wanted_steps)
        require(self.batch is None or self.batch >= 1, f"batch must be >= 1, got {self.batch}.")
        require(self.cfg_scale >= 0, f"cfg_scale must be >= 0, got {self.cfg_scale}.")
        low, high = self.cfg_interval or (0, 1)
        require(0 <= low < high <= 1, f"cfg_interval must be 0 <= low < high <= 1, got {low} {high}.")
        require(
            self.cfg_interval is None or self.cfg_scale > 0,
            "cfg_interval says when cfg_scale acts, and none is given"
            + (" (a plan chooses it for the whole course). Leave it out." if self.plan else ". Pass --cfg_scale 0.5."),
        )
        require(
            self.guide is not None
            or all(getattr(self, f"guide_{name}") is None for name in ("scale", "until", "slots")),
            "guide_scale, guide_until and guide_slots belong to a guide. Pass --guide mgd3, or leave them out.",
        )
        guide = self.make_guide()
        if guide is not None and self.solver == "consistency":
            from gen_dd.consistency import check_guide

            check_guide(guide, int(self.wanted_steps))
        require(
            self.filter is None or guide is None or not guide.joint,
            f"a filter replaces single images, and under the guide {self.guide} groups of them act on each other. "
            "Leave out --filter, or choose another --guide.",
        )
        require(
            self.expansion is None or (self.expansion >= 1 and self.solver != "consistency"),
            f"expansion must be >= 1 and is for the solvers of a diffusion model, got {self.expansion} and solver "
            f"{self.solver}. Leave it out.",
        )
        require(self.filter is None or 0 <= self.filter < 1, f"filter must be in [0, 1), got {self.filter}.")
        require(
            self.filter is not None or self.plan or (self.filter_network is None and self.filter_protocol is None),
            "filter_network and filter_protocol belong to a filter. Pass --filter 0.05, or leave them out.",
        )
        require(
            self.plan != "auto" or self.filter_protocol in (None, "quick"),
            f"plan auto cannot tell beforehand how long a filter's classifier takes by {self.filter_protocol}: "
            "it knows quick alone. Leave out --filter_protocol.",
        )
        at_least(self, 1, "plan_per_class")
        require(
            self.plan != "auto" or self.budget is not None,
            "plan auto plans for a budget. Add --budget 10m, or leave it out.",
        )
        self.seconds  # noqa: B018 (checks the budget)

    @property
    def wanted_steps(self) -> int | str:
        """The steps asked for, or the solver's own."""
        return steps_of(self.solver) if self.steps is None else self.steps

    def make_guide(self) -> "Guide | None":
        """The guide asked for, unprepared."""
        if self.guide is None:
            return None
        from gen_dd.guidance import make_guide

        return make_guide(self.guide, scale=self.guide_scale, until=self.guide_until, slots=self.guide_slots)

    @property
    def seconds(self) -> float | None:
        """The budget in seconds."""
        if self.budget is None:
            return None
        match = needed(
            re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h)?", self.budget.strip()),
            f"budget '{self.budget}' is not a time. Write 20s, 10m, 1h or a number of seconds.",
        )
        seconds = float(match[1]) * {"s": 1, None: 1, "m": 60, "h": 3600}[match[2]]
        require(0 < seconds < math.inf, f"budget must be > 0 and finite, got {brief(self.budget)}.")
        return seconds


def steps_of(solver: str) -> int:
    """Network evaluations per image where none are asked for."""
    return FEW_STEPS if solver == "consistency" else STEPS


def check_steps(solver: str, steps: int | str) -> None:
    """Raise `InputError` for steps, a number or "auto", that a solver does not have."""
    if solver != "consistency":
        require(isinstance(steps, str) or steps >= 1, f"steps must be >= 1, got {steps}.")
        return
    require(
        not isinstance(steps, str),
        f"steps auto chooses from 10 to 50, and a consistency model draws in 1 to {MOST_STEPS}. Pass --steps 2.",
    )
    require(
        1 <= steps <= MOST_STEPS,
        f"a consistency model draws in 1 to {MOST_STEPS} steps, got {steps}. Pass --steps 2, or draw with the model it "
        "was tuned from and another solver.",
    )


def check_amount(num_per_class: int | None, budget: str | float | None, steps: int | str) -> None:
    """Raise `InputError` unless number, budget and steps say how much to draw."""
    require(
        budget is not None or num_per_class is not None,
        "how many images? Give a budget (--budget 20s), a number (--num_per_class 10), or both.",
    )
    require(num_per_class is None or num_per_class >= 1, f"num_per_class must be >= 1, got {num_per_class}.")
    if isinstance(steps, str):
        require(steps == "auto", f"steps must be a number or auto, got '{steps}'.")
        require(budget is not None, "steps auto fits the steps into a budget. Add --budget 10m, or pass a number.")


@dataclass(kw_only=True)
class SelectConfig(DataConfig):
    """Choose ipc images per class from a generated pool."""

    GROUP: ClassVar[str] = "choice"

    pool: str = ""
    """What to choose from: a folder of gendd sample, or a distilled-set file."""
    selector: str = option("herding", choices=CHOOSER_CHOICES)
    """How they are chosen."""
    ipc: int = 10
    """Images per class."""
    network: str = option("convnet3", choices=NETWORK_CHOICES, others=True)
    """The classifier whose features are compared."""
    classifier: str | None = None
    """Its file: read where there is one, else written after training. Default: trained each time, not kept."""
    seed: int = option(0, group="run")
    """Seed of the choice and of the classifier."""
    device: str | None = option(None, group="run")
    """cpu, cuda, cuda:1; default: cuda where there is one."""
    out: str = option("", group="run")
    """The file to write."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.pool), "which pool? Pass --pool FOLDER, as gendd sample wrote it.")
        require(bool(self.out), "where to? Pass --out FILE.safetensors.")
        require(self.ipc >= 1, f"ipc must be >= 1, got {self.ipc}. Pass --ipc 10.")


@dataclass(kw_only=True)
class ChallengeConfig(Options):
    """Make a whole submission to the ECCV 2024 challenge from two trained models, and score it.

    gendd challenge MODEL_CIFAR100 MODEL_TINY_IMAGENET --out FOLDER draws a pool of each inside the budget, chooses 10
    images per class of it for track 1, and writes OUT/track1 and OUT/track2 with cifar100.pt and tinyimagenet.pt, each
    read back, checked and scored by the challenge protocol. The accuracies, and their mean over the two data sets for
    each track, are printed and kept in OUT/challenge.json.
    """

    GROUP: ClassVar[str] = "submission"
    SAMPLING: ClassVar[tuple[str, ...]] = (
        "budget", "num_per_class", "steps", "solver", "cfg_scale", "filter", "plan", "bf16", "seed", "device",
    )  # fmt: skip

    cifar100: str = ""
    """The model of CIFAR-100: a run folder of gendd train or tune, or the model folder in it."""
    tiny_imagenet: str = ""
    """The model of Tiny-ImageNet."""
    cifar100_data: str | None = option(None, group="data")
    """The real data, e.g. parquet:FOLDER; default: what the model's card says it was trained on."""
    tiny_imagenet_data: str | None = option(None, group="data")
    """The real data, e.g. tiny_imagenet:FOLDER; default likewise."""
    selector: str = option("herding", choices=CHOOSER_CHOICES)
    """How track 1's images are chosen from the pool."""
    network: str = option("convnet3", choices=NETWORK_CHOICES, others=True)
    """The classifier of the real data whose features are compared for that."""
    epochs: int | None = None
    """Score by a challenge protocol shortened to this many passes, and say so; default: the full protocol."""
    iterations: int | None = None
    """Score by a challenge protocol shortened to this many steps, and say so."""
    budget: str = option("10m", group="sampling")
    """Wall-clock time for each pool, imports and loading included; the challenge allows 10 minutes. Choosing and
    scoring are not counted."""
    num_per_class: int | None = option(None, group="sampling")
    """At most so many images of each class in a pool; default: as many as the budget allows."""
    steps: int | str | None = option(None, group="sampling")
    """As for gendd sample, as are the next ones: network evaluations per image, or auto."""
    solver: str = option("dpmpp_2m", group="sampling", choices=SOLVER_CHOICES)
    """How noise becomes images; both models are drawn alike."""
    cfg_scale: float = option(0.0, group="sampling")
    """Classifier-free guidance."""
    filter: float | None = option(None, group="sampling")
    """Draw images again that a classifier of the real data rejects."""
    plan: str | None = option(None, group="sampling")
    """auto: choose steps, cfg_scale and filter for each pool by short trials inside the budget."""
    bf16: bool = option(True, group="speed")
    """Compute in bf16 where the hardware does it faster; the classifiers' weights stay in fp32."""
    seed: int = option(0, group="run")
    """Of the noise, the choice and the scoring."""
    device: str | None = option(None, group="run")
    """cpu, cuda, cuda:1; default: cuda where there is one."""
    out: str = option("", group="run")
    """The folder for pools, chosen images, both tracks and challenge.json."""
    resume: bool = option(False, group="run")
    """Go on in a folder that was begun: what is finished there is not made again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            bool(self.cifar100 and self.tiny_imagenet),
            "which models? gendd challenge MODEL_CIFAR100 MODEL_TINY_IMAGENET --out FOLDER.",
        )
        require(bool(self.out), "where to? Pass --out FOLDER.")
        at_least(self, 1, "epochs", "iterations")
        require(
            self.num_per_class is None or self.num_per_class >= 10,
            f"num_per_class must be >= 10, the images of track 1, got {self.num_per_class}.",
        )
        require(
            self.plan in (None, "auto"),
            f"plan must be auto, got {self.plan}: the two models want plans of their own. Pass --plan auto, or none.",
        )
        SampleConfig(model="-", out="-", **{name: getattr(self, name) for name in self.SAMPLING})
