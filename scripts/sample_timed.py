"""accelerate launch scripts/sample_timed.py --model RUN --out FOLDER --budget 10m: the same as `gendd sample`."""

from core_dd import cli
from gen_dd.sample import main

if __name__ == "__main__":
    cli.entry(main)
