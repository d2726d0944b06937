"""`python -m benchmarks [name ...]`: see harness.py."""

from benchmarks.harness import main
from core_dd import cli

cli.entry(main)
