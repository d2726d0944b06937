"""`python -m gendd` is the console script `gendd`."""

from core_dd.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
