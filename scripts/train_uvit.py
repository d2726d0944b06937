"""accelerate launch scripts/train_uvit.py --config digits: the same as `gendd train`."""

from core_dd import cli

if __name__ == "__main__":
    cli.script("train")
