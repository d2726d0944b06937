"""accelerate launch scripts/train_uvit.py --config configs/gen/digits.yaml: the same as `gendd train`."""

from core_dd import cli
from gen_dd.train import main

if __name__ == "__main__":
    cli.entry(main)
