"""accelerate launch scripts/sample_timed.py --model RUN --out FOLDER --budget 10m: the same as `gendd sample`."""

from core_dd import cli

if __name__ == "__main__":
    cli.script("sample")
