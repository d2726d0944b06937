"""The options of comparison runs. No torch."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from core_dd.errors import above, at_least, require
from core_dd.options import Options, option

EXECUTOR_CHOICES = MappingProxyType(
    {
        "local": "worker processes on this machine, as many as cores, memory or GPUs allow",
        "ray": "tasks of Ray, on this machine or a cluster (gendd[ray])",
        "slurm": "job arrays of Slurm, which nodes do that share the folder (gendd[slurm])",
    }
)
"""Where the work is done (`core_dd.compare.executors.EXECUTORS`)."""

CODE_CHOICES = MappingProxyType(
    {
        "version": "results of the same version of gendd are taken, whatever was changed in its sources since",
        "sources": "a change of any source file of gendd makes everything anew",
    }
)
"""What of the code tells whether a result may be taken."""


@dataclass(kw_only=True)
class CompareConfig(Options):
    """Compare methods by one YAML file: make every set, judge it, and print and write the tables.

    The file names producers of sets, data, images per class, seeds, networks and protocols; what is done already is
    not done again, and the same command goes on after a kill. It is given first, without a flag, by its name among
    those that come with gendd or by its path: gendd compare demo, or gendd compare mine.yaml --out runs/mine.
    """

    GROUP: ClassVar[str] = "comparison"

    file: str = ""
    """The comparison: a packaged one by its name (demo, m3d_table2, ...) or a YAML file."""
    data: tuple[str, ...] = ()
    """Where data of the file lie, as NAME=SPEC: cifar10=parquet:data/cifar10."""
    only: tuple[str, ...] = ()
    """Only cells whose name holds one of these; names are /PRODUCER/DATA/ipcN/seedN/NETWORK/PROTOCOL/, * stands for
    anything: "/DM/*/ipc10/" leaves IDM and ipc 100 out, as "DM/*/ipc10" does not."""
    code: str = option("version", choices=CODE_CHOICES)
    """Which results of other code are taken as done."""
    figures: bool = True
    """Draw the figures at the end, as SVG and PDF (the extra gendd[figures])."""
    status: bool = False
    """Show how far the comparison in its folder is, and stop; starts nothing."""
    executor: str = option("local", group="workers", choices=EXECUTOR_CHOICES)
    """Where the work is done."""
    workers: int | None = option(None, group="workers")
    """Processes side by side; default: as many as cores and memory allow, on GPUs one each; of Slurm 100 jobs. 0: none
    but this one, one thing after the other."""
    threads: int | None = option(None, group="workers")
    """Threads of each; default: OMP_NUM_THREADS where it is set, else the cores divided among the workers; of Slurm's
    jobs 1."""
    memory_gib: float | None = option(None, group="workers")
    """GiB of memory that a worker is expected to take; default: 1.25 times the most that finished work took, else 2."""
    address: str | None = option(None, group="ray")
    """Of the cluster: HOST:PORT, ray://HOST:PORT, or auto for one that this machine belongs to; default: an instance of
    its own on this machine."""
    copy: bool = option(False, group="ray")
    """The nodes do not share the folder: what a task needs goes there, and sets, scores and logs come back."""
    slurm: tuple[str, ...] = option((), group="slurm")
    """What sbatch is told, as KEY=VALUE: partition=gpu time=600 gpus_per_node=1 account=me. cluster=local or
    cluster=debug does the jobs here, to try them."""
    device: str | None = option(None, group="run")
    """cpu or cuda; default: cuda where there is one."""
    out: str | None = option(None, group="run")
    """The folder of the comparison, in which it goes on; default: runs/compare/NAME."""
    dry_run: bool = option(False, group="run")
    """Check everything, print the cells, what is there already, and the time and memory to expect; then stop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.file), "compare what? Give a file or a name, first: gendd compare demo.")
        at_least(self, 0, "workers")
        at_least(self, 1, "threads")
        above(self, 0, "memory_gib")
        for place in self.data:
            name, equals, spec = place.partition("=")
            require(
                bool(name and equals and spec),
                f"--data {place} does not say where which data lie. Write --data NAME=SPEC, such as "
                "cifar10=parquet:data/cifar10.",
            )
        for own in self.slurm:
            key, equals, value = own.partition("=")
            require(bool(key and equals and value), f"--slurm {own} is not written as KEY=VALUE, such as time=600.")
        for name, executor in (("address", "ray"), ("copy", "ray"), ("slurm", "slurm")):
            require(
                not getattr(self, name) or self.executor == executor,
                f"--{name} is of --executor {executor}, and this is --executor {self.executor}.",
            )
        require(self.executor == "local" or self.workers != 0, f"--executor {self.executor} needs workers: 1 or more.")
        require(self.device in (None, "cpu", "cuda"), f"device must be cpu or cuda, got '{self.device}'.")
        require(not (self.status and self.dry_run), "give --status or --dry_run, not both.")

    @property
    def slurm_options(self) -> dict[str, str | int]:
        """What sbatch is told, whole numbers as such."""
        pairs = (own.partition("=")[::2] for own in self.slurm)
        return {key: int(value) if value.isdecimal() else value for key, value in pairs}


@dataclass(kw_only=True)
class RankConfig(CompareConfig):
    """Rank networks by training them on small sets: does a set choose the network that the real images would?

    The file is a comparison whose `networks` are many, by name or as a grid, and which judges the real training images,
    too, by the epochs it says: gendd rank-networks search_fashion_mnist. Networks are trained and found again as by
    gendd compare, which the other options are for.
    """

    GROUP: ClassVar[str] = "ranking"

    top: float = 0.2
    """The share of the networks, best on real images, among which the ranking is looked at, too."""

    def __post_init__(self) -> None:
        require(
            bool(self.file), "rank which networks? Give a file or a name, first: gendd rank-networks search_cifar10."
        )
        super().__post_init__()
        require(0 < self.top <= 1, f"top must be in (0, 1], got {self.top}.")
