"""Where ``gpt2-np`` and ``python -m gpt2_np`` begin."""

from __future__ import annotations

import sys


def main() -> None:
    """The command line, loaded here so that Ctrl-C is as quiet while modules load as it is later: exit status 130."""
    try:
        from .cli import main

        main()
    except KeyboardInterrupt:
        print(file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
