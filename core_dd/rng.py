"""Named random streams: every draw of a run is keyed by (seed, purpose, ...) and by nothing else.

A step of a run asks for `stream(seed, "augment", step)`, so its draws depend neither on what was drawn before nor on
the number of processes, and a resumed run needs no saved generator state to repeat an uninterrupted one.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import torch

from core_dd.errors import whole


def stream(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator for one purpose.

    Args:
        seed: the run's seed.
        names: what the draws are for, e.g. ("noise", class_index, image_index); order matters.
        device: where the generator draws.

    Returns:
        A `torch.Generator` whose state is a 63-bit BLAKE2 hash of the seed and the names.

    Raises:
        InputError: a seed that is no whole number.

    Examples:
        >>> import torch
        >>> torch.rand(2, generator=stream(0, "noise", 3)).equal(torch.rand(2, generator=stream(0, "noise", 3)))
        True
        >>> torch.rand(2, generator=stream(0, "noise", 3)).equal(torch.rand(2, generator=stream(0, "noise", 4)))
        False
    """
    whole("seed", seed)
    key = "/".join(f"{type(part).__name__}:{part}" for part in (int(seed), *names))
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest, "little") >> 1)


@contextlib.contextmanager
def drawn_by(generator: torch.Generator | None, device: str | torch.device = "cpu") -> Iterator[None]:
    """Let `generator` decide what code draws that takes no generator: dropout, the constructors of other libraries.

    During the block torch's own generators, those of the CPU and of `device`, are seeded by one draw from it; after the
    block they are as they were. None leaves everything alone.
    """
    if generator is None:
        yield
        return
    seed, device = int(torch.randint(2**62, (), generator=generator)), torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
