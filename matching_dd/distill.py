"""Command: learn ipc images per class by matching real data."""

import datetime
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from core_dd import cli, files, pictures, readers
from core_dd.augment import DSA, strategy_for
from core_dd.config import load_config, peek, to_dict, to_yaml
from core_dd.data import ImageData
from core_dd.distilled import DistilledSet, new_meta
from core_dd.errors import pick, require
from core_dd.preprocess import Preprocess
from core_dd.rng import stream
from core_dd.run import Run, find_folder
from core_dd.speed import peak_mib, pick_device
from matching_dd.base import MatchingConfig, class_chunks
from matching_dd.methods import METHODS
from matching_dd.real import RealImages
from matching_dd.synthetic import Synthetic, initial_images


def distill(method: str, data: str | ImageData, ipc: int, **config: Any) -> DistilledSet:
    """Distil a dataset, in a run folder, as the command does.

    Args:
        method: a key of `METHODS`.
        data: the real data, or its spec.
        ipc: synthetic images per class.
        config: other fields of the method's config, e.g. `iterations=1000, seed=1, out="runs/mine"`.

    Returns:
        The set that the run folder's distilled.safetensors holds: float images in pixel units, hard labels.

    Raises:
        InputError: an unknown method or option, data or options that do not fit, or a run folder that exists.
    """
    cls = pick(METHODS, method, "method").Config
    known = {field.name: field for field in fields(cls) if field.name != "dry_run"}
    for name in config:
        pick(known, name, f"option of {method}")
    spec = data if isinstance(data, str) else data.name
    return run(cls(method=method, data=spec, ipc=ipc, **config), None if isinstance(data, str) else data)


class Matching:
    """One distillation, ready to iterate: the real images, the synthetic ones, the method and the image optimiser."""

    def __init__(self, config: MatchingConfig, data: ImageData) -> None:
        self.config, self.device = config, pick_device(config.device)
        preprocess = Preprocess.fit(data, config.preprocess)
        self.real = RealImages(data, config.batch_real, preprocess.to(self.device), config.seed, self.device)
        start = initial_images(config.init, data, config.ipc, preprocess, config.seed)
        self.synthetic = Synthetic(start.to(self.device), preprocess)
        self.augment = DSA(strategy_for(data) if config.augment == "auto" else config.augment)
        self.method = pick(METHODS, config.method, "method")(config, data, self.device)
        self.optimizer = torch.optim.SGD([self.synthetic.images], lr=config.lr_img, momentum=config.momentum)
        self.chunks = class_chunks(data.num_classes, config, self.network(0), data.shape)

    def network(self, step: int) -> nn.Module:
        """The network of one iteration."""
        return self.method.draw_network(step, stream(self.config.seed, "network", step))

    def step(self, step: int) -> Tensor:
        """One iteration: a network, the loss summed over all classes, one joint step of the images."""
        net = self.network(step)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for classes in self.chunks:
            real, syn = self.real.draw(step, classes), self.synthetic.decoded(classes)
            real, syn = self.augment.siamese(real, syn, [stream(self.config.seed, "augment", step, k) for k in classes])
            loss = self.method.loss(net, real, syn)
            loss.backward()
            total += loss.detach()
        self.optimizer.step()
        return total

    def save(self, folder: Path, dset: DistilledSet) -> None:
        """Everything the next iteration depends on, and the set so far with its picture."""
        torch.save({"images": self.synthetic.images.detach(), "optimizer": self.optimizer.state_dict()}, folder / STATE)
        dset.save(folder / DISTILLED)
        pictures.save_grid(folder / GRID, dset.images, dset.labels)

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote."""
        state = readers.load_tensors(folder / STATE)
        with torch.no_grad():
            self.synthetic.images.copy_(state["images"])
        self.optimizer.load_state_dict(state["optimizer"])


def run(config: MatchingConfig, data: ImageData | None = None) -> DistilledSet:
    """Distil as `config` says (on `data`, where it is loaded already) in a run folder, and return the set.

    Raises:
        InputError: whatever does not fit, before any work; a loss that is not finite.
    """
    # Whatever can be wrong is found before any work.
    data = data or config.load_data(config.seed)
    matching, name = Matching(config, data), run_name(config, data)
    with Run.open(config.out, name, config, resume=config.resume, tracker=config.tracker, keep=config.keep) as run:
        # A resumed run continues where its last checkpoint was; every draw is keyed by (seed, purpose, step).
        first, folder = run.last() or (0, None)
        if folder is not None:
            require(first <= config.iterations, f"{folder} is past iteration {config.iterations}. Raise --iterations.")
            matching.load(folder)
            run.say(f"resumed at iteration {first} from {folder}")
        if matching.real.smaller_classes:
            run.say(
                f"{len(matching.real.smaller_classes)} of {data.num_classes} classes have fewer than batch_real "
                f"{config.batch_real} images: they are sampled with replacement."
            )
        started = time.perf_counter()

        # Match.
        steps = range(first, config.iterations)
        for step in (bar := tqdm(steps, "distil", config.iterations, initial=first, unit="step", disable=None)):
            loss, done = matching.step(step), step + 1
            if done % config.log_every == 0 or done % config.checkpoint_every == 0 or done == config.iterations:
                run.log(done, loss=loss.item())  # stops on a loss that is not finite, before anything is saved
                bar.set_postfix(loss=f"{loss.item():.4g}", refresh=False)
            if done % config.checkpoint_every == 0 or done == config.iterations:
                dset = matching.synthetic.to_distilled(describe(config, data, done, time.perf_counter() - started))
                with run.checkpoint(done) as folder:
                    matching.save(folder, dset)

        # The result is the last checkpoint's set.
        last = run.last()[1]
        for file in (DISTILLED, GRID):
            with files.atomic(run.folder / file) as temporary:
                shutil.copyfile(last / file, temporary)
        run.say(f"{run.folder / DISTILLED}: {config.ipc} images per class of {data.name}")
        return DistilledSet.load(run.folder / DISTILLED)


def run_name(config: MatchingConfig, data: ImageData) -> str:
    """What the run folder is called where none is given."""
    return f"{data.name}-{config.method}-ipc{config.ipc}"


def describe(config: MatchingConfig, data: ImageData, iterations: int, seconds: float) -> dict[str, Any]:
    """The metadata of the set after so many iterations; `seconds` are this process's."""
    cost = {"iterations": iterations, "seconds": round(seconds, 3)}
    return new_meta(data, method=config.method, ipc=config.ipc, seed=config.seed, config=to_dict(config), cost=cost)


def dry_run(config: MatchingConfig) -> None:
    """Print the resolved config, and the memory and time to expect, measured on a few iterations that are then lost."""
    data = config.load_data(config.seed)
    find_folder(config.out, run_name(config, data), config.resume)
    matching, seconds = Matching(config, data), []
    for step in range(1 + TRIALS):
        started = time.perf_counter()
        matching.step(step).item()
        seconds.append(time.perf_counter() - started)
    each = statistics.median(seconds[1:])
    print(to_yaml(config), end="")
    print(f"# checked on {matching.device}: {len(matching.chunks)} part(s) of the classes per iteration")
    print(f"# memory: {peak_mib(matching.device) / 1024:.2f} GiB at its peak")
    print(
        f"# time: {seconds[0]:.1f} s to start, then {each:.3g} s per iteration: "
        f"{datetime.timedelta(seconds=round(seconds[0] + each * config.iterations))} for {config.iterations}"
    )


TRIALS = 5
STATE, DISTILLED, GRID = "state.pt", "distilled.safetensors", "grid.png"


def main(argv: Sequence[str] | None = None) -> None:
    """Distil one set."""
    method = peek(argv, "method") or MatchingConfig.method
    config = load_config(pick(METHODS, method, "method").Config, argv, prog="gendd distill")
    (dry_run if config.dry_run else run)(config)


if __name__ == "__main__":
    cli.entry(main)
