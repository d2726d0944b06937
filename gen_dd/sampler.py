"""Draws images by number with a trained U-ViT, and looks at its own speed to fit a budget."""

import math
import time
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from core_dd.errors import needed, pick, require
from core_dd.notes import note
from core_dd.rng import stream
from core_dd.speed import UVIT_SAMPLING, autocast, compiled, peak_mib, restart_peak, tf32
from gen_dd import consistency
from gen_dd.budget import AUTO_STEPS, LARGEST, BatchPace, Clock, Ranks, fastest, free_mib, most_steps, wait, within
from gen_dd.diffusion import TIME_SCALE
from gen_dd.guidance import Guide
from gen_dd.options import check_steps, steps_of
from gen_dd.solvers import SOLVERS, Fresh, NoiseOf, guided, inside
from gen_dd.uvit import CONSISTENCY, UViT, image_flops

_AUTO_PER_CLASS = 500
"""The images per class that "auto" makes room for where no number is given: as many as CIFAR-100 has."""
_BATCH = 250
"""Images per batch where neither the user nor a budget's look at the speed says how many."""
_LOOKS = 3
"""Evaluations of each kind that a look at the speed makes."""
_COMPILE_S = MappingProxyType({"cuda": 120, "cpu": 300})
"""Seconds left of a budget from which compiling is tried, by the kind of device: nothing can stop it once begun."""


def pays_to_compile(
    model: UViT, images: float, evaluations: float, device: torch.device, left: float = math.inf
) -> bool:
    """Whether compiling earns back what it takes in drawing so many images, by so many evaluations each.

    Args:
        left: seconds of a budget that are left.
    """
    if not UVIT_SAMPLING.pays(left, device):
        return False
    seconds = UVIT_SAMPLING.seconds(_BATCH * image_flops(model), images / _BATCH * evaluations, device)
    return UVIT_SAMPLING.pays(seconds, device)


class Sampler:
    """Draws images by number, and says how long a batch will take.

    Args:
        model: a class-conditional `UViT`.
        steps, solver, cfg_scale, cfg_interval: see `SampleConfig`; `calibrate` chooses steps that are "auto".
        guide: a prepared guide.
        expansion: what the noise that images start from is multiplied by.
        seed: of the noise.
        device, bf16, compile: where and how to compute. A compiled network serves batches of size `batch` alone.
        batch: the largest batch; None leaves it to `calibrate`.

    Raises:
        InputError: if the model takes no labels, is to be guided and never learnt without them, is not of the solver's
            kind, or a batch does not hold one group of the guide's; steps that the solver does not have.
    """

    def __init__(
        self,
        model: UViT,
        *,
        steps: int | Literal["auto"] | None = None,
        solver: str = "dpmpp_2m",
        cfg_scale: float = 0.0,
        cfg_interval: tuple[float, float] | None = None,
        guide: Guide | None = None,
        expansion: float = 1.0,
        seed: int = 0,
        batch: int | None = None,
        device: torch.device | str = "cpu",
        bf16: bool = True,
        compile: bool = False,
    ) -> None:
        self.null_class = needed(model.null_class, "the model takes no labels; train one with classes.")
        model.check_guidance(cfg_scale)
        model.check_solver(solver)
        # A consistency model multiplies its one or two errors by noise levels of up to 20: bf16 would be seen. On
        # Fashion-MNIST, in two steps, it moves pixels by 2.3 of 255 grey levels, TF32 by 0.3.
        few = solver == CONSISTENCY
        self.device, self.seed, self.bf16, self.tf32 = torch.device(device), seed, bf16 and not few, bf16 and few
        self.model = model.to(device).eval()
        self.fast = _faster(self.model, self.device) if compile else self.model
        self.solve, self.cfg_scale, self.cfg_interval = pick(SOLVERS, solver, "solver"), cfg_scale, cfg_interval
        self.expansion = expansion
        self.guide, self.group = guide, guide.slots if guide is not None and guide.joint else 1
        steps = steps_of(solver) if steps is None else steps
        self.auto_steps, self.auto_batch = steps == "auto", batch is None
        self.steps = AUTO_STEPS[1] if steps == "auto" else steps
        check_steps(solver, steps)
        if solver == CONSISTENCY and guide is not None:
            consistency.check_guide(guide, self.steps)
        self.shares = [1 / self.steps] * self.steps
        batch = max(_BATCH, self.group) if batch is None else batch
        require(batch >= self.group, f"batch {batch} is smaller than a group of {self.group}. Pass a larger --batch.")
        self.batch = batch // self.group * self.group
        self.told = False
        self.classes = model.config.num_classes
        self.shape = (model.config.in_channels, model.config.image_size, model.config.image_size)

    def places(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Labels and indices within the class of the images of these numbers, round the classes: int64 (N,) each."""
        number, block = torch.tensor(numbers), self.group * self.classes
        return number % block // self.group, number // block * self.group + number % self.group

    def labels(self, numbers: Sequence[int]) -> Tensor:
        """Their labels alone."""
        return self.places(numbers)[0]

    def noise(self, numbers: Sequence[int], *again: int | str) -> Tensor:
        """Their noise, (N, C, H, W), each keyed by (seed, class, index within the class), and by what more is given."""
        keys = zip(*(part.tolist() for part in self.places(numbers)), strict=True)
        return torch.stack(
            [torch.randn(self.shape, generator=stream(self.seed, "noise", *key, *again)) for key in keys]
        )

    def fresh(self, numbers: Sequence[int], *again: int | str) -> Fresh:
        """What gives other noise for the same images: see `gen_dd.solvers`."""
        return lambda number: self.noise(numbers, *again, number).to(self.device)

    def begin(
        self, numbers: Sequence[int], network: Callable[..., Tensor], *again: int | str
    ) -> tuple[NoiseOf, Tensor]:
        """For the images of these numbers, what predicts their noise, and the noise that they start from."""
        labels, index = (part.to(self.device) for part in self.places(numbers))
        options: dict[str, Any] = {"interval": self.cfg_interval, "guide": self.guide, "index": index}
        noise_of = guided(network, labels, self.cfg_scale, self.null_class, **options)
        return noise_of, self.expansion * self.noise(numbers, *again).to(self.device)

    @torch.inference_mode()
    def draw(self, numbers: Sequence[int], seconds: float = math.inf, attempt: int = 0) -> Tensor:
        """The images of these numbers, whole groups of them: uint8 (N, C, H, W); of attempt 1, 2, ... others.

        Says once on stderr if a batch shows nothing: every image of one colour.

        Raises:
            TimeUp: as soon as it shows that they will not be done within `seconds`.
            InputError: if the model draws values that are not finite.
        """
        again = ("again", attempt) if attempt else ()
        noise_of, x = self.begin(numbers, self.fast if len(numbers) == self.batch else self.model, *again)
        with autocast(self.device, self.bf16), tf32(self.device, self.tf32):
            x = self.solve(within(seconds, self.shares, noise_of), x, self.steps, self.fresh(numbers, *again))
        require(
            bool(torch.isfinite(x).all()),
            "the model draws values that are not finite: its training diverged, or cfg_scale or guide_scale is far too "
            "large. Lower them, or take an earlier checkpoint.",
        )
        images = ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
        low, high = images.flatten(1).aminmax(dim=1)
        if not self.told and bool((low == high).all()):
            self.told = True
            note(f"note: each of {len(images)} images drawn is of one colour. The model has not learnt to draw.")
        return images

    def total(self, num_per_class: int | None) -> int | None:
        """How many images make `num_per_class` of every class; None, without end, for None.

        Raises:
            InputError: if that is no whole number of groups.
        """
        if num_per_class is None:
            return None
        require(
            num_per_class % self.group == 0,
            f"num_per_class {num_per_class} is not a multiple of the groups of {self.group} that this guide draws.",
        )
        return num_per_class * self.classes

    def calibrate(
        self, clock: Clock, total: int | None = None, ranks: Ranks | None = None, besides: float = 0.0
    ) -> BatchPace:
        """With a budget, measure what a batch takes, and choose batch size and steps where they are open.

        Args:
            clock: the budget; the time spent here is booked.
            total: how many images are wanted, None for as many as there is time for.
            ranks: the processes, which all choose the same.
            besides: seconds that every image takes beside its drawing.
        """
        if clock.budget is None:
            return BatchPace(besides, besides * self.batch, self.batch)
        if self.device.type == "cuda":  # a filter's training may have held more; a job's host memory counts on
            restart_peak(self.device)
        ranks, left, before = ranks or Ranks(), clock.left(), peak_mib(self.device)
        wanted = _COMPILE_S.get(self.device.type, math.inf)
        if self.fast is not self.model and left < wanted:
            note(f"note: not compiled: {left:.0f} s of the budget are left, and compiling may take {wanted} s.")
            self.fast = self.model

        def affordable(at_most: float) -> bool:
            """Whether a look takes a twelfth of the time, and four times the memory so far half of what is free."""
            grows = 4 * (peak_mib(self.device) - before)
            return at_most * _LOOKS / self.steps <= left / 12 and grows <= free_mib(self.device) / 2

        self.seconds(self.group)  # the first call loads what the later ones find there
        if self.auto_batch:
            most = LARGEST if total is None else min(LARGEST, math.ceil(total / ranks.count))
            pace = fastest(self.seconds, self.group, max(most, self.group), left / 5, affordable)
            self.batch = ranks.least(pace.batch)
            pace = pace.up_to(self.batch)
        else:
            one = self.seconds(self.group)
            full = one * self.batch / self.group
            full = self.seconds(self.batch) if affordable(full) else full
            pace = BatchPace(one, full, self.batch, least=self.group)
        clock.book("measure")
        if self.fast is not self.model:
            pace.whole = self.seconds(self.batch, self.fast)
            clock.book("compile")
        if self.auto_steps:
            images = _AUTO_PER_CLASS * self.classes if total is None else total
            whole = pace.whole * images / (self.batch * ranks.count)
            looking = besides * images / ranks.count
            steps = ranks.least(most_steps(whole / self.steps, clock.left() - looking))
            pace.scale(steps / self.steps)
            self.steps = steps
        each = self.costs(self.group, self.model)[1]
        self.shares = [seconds / sum(each) for seconds in each]
        pace.add(besides)
        clock.book("measure")
        return pace

    def seconds(self, images: int, network: Callable[..., Tensor] | None = None) -> float:
        """What a batch of so many images takes, by a look at the speed; without `network`, of the plain one."""
        rest, each = self.costs(images, network or self.model)
        return rest + sum(each)

    @torch.inference_mode()
    def costs(self, images: int, network: Callable[..., Tensor]) -> tuple[float, list[float]]:
        """Seconds of the solver with a network that costs nothing, and of each evaluation that it asks for.

        Evaluations of one kind, guided or not, cost the same: the fastest of `_LOOKS`.
        """
        began, timesteps = time.perf_counter(), []
        noise_of, x = self.begin(range(images), network)

        def nothing(x: Tensor, timestep: Tensor) -> Tensor:
            timesteps.append(timestep)
            return torch.zeros_like(x)

        def look(timestep: Tensor) -> float:
            began = time.perf_counter()
            noise_of(x, timestep)
            wait(self.device)
            return time.perf_counter() - began

        with autocast(self.device, self.bf16), tf32(self.device, self.tf32):
            self.solve(nothing, x, self.steps, self.fresh(range(images)))
            wait(self.device)
            rest = time.perf_counter() - began
            kinds = [self.kind(float(timestep) / TIME_SCALE) for timestep in timesteps]
            one_of = dict(zip(kinds, timesteps, strict=True))
            fastest_of = {kind: min(look(timestep) for _ in range(_LOOKS)) for kind, timestep in one_of.items()}
        return rest, [fastest_of[kind] for kind in kinds]

    def kind(self, t: float) -> tuple[bool, bool]:
        """Whether classifier-free guidance and whether the guide act at time t."""
        return (
            self.cfg_scale > 0 and inside(self.cfg_interval, t),
            self.guide is not None and t > self.guide.until,
        )


def _faster(model: UViT, device: torch.device) -> Callable[..., Tensor]:
    """The network compiled for one batch size; on CUDA into a graph, so that no kernel waits to be launched."""
    if device.type != "cuda":
        return compiled(model, device, dynamic=False)
    graph = compiled(model, device, dynamic=False, mode="reduce-overhead")

    def network(*inputs: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return graph(*inputs).clone()  # the graph writes its next result to the same place, and solvers look back

    return network
