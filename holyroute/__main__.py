"""`python -m holyroute` and the `holyroute` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say which extra it needs."""
    try:
        from holyroute.cli import main as run
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        sys.exit(f"holyroute: the command line needs {error.name}; install it with: pip install 'holyroute[cli]'")
    run()


if __name__ == "__main__":
    main()
