"""``python -m ci_live_audit``: the command line, where its script is not on the path."""

from ci_live_audit.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
