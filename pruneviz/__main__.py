"""``python -m pruneviz``: see :mod:`pruneviz.cli`."""

from pruneviz.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
