"""`python -m bearerd` is `bearerd`."""

from bearerd.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
