"""Command: tune a trained U-ViT into a consistency model, which draws in one to eight steps."""

from collections.abc import Sequence

from core_dd import cli
from core_dd.config import load_config
from gen_dd.options import TuneConfig
from gen_dd.train import dry_run, train


def main(argv: Sequence[str] | None = None) -> None:
    """Tune one model."""
    config = load_config(TuneConfig, argv, prog="gendd tune")
    (dry_run if config.dry_run else train)(config)


if __name__ == "__main__":
    cli.entry(main)
