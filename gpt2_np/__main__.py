"""The entry point of ``gpt2-np`` and of ``python -m gpt2_np``."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """The command line, loaded here so that Ctrl-C is as quiet while modules load as it is later: exit status 130."""
    # Loading makes objects by the hundred thousand, all of which stay: to look through them for garbage again and
    # again, and once more at the end, would take a fifth of the time of a short command.
    gc.set_threshold(200_000)
    try:
        try:
            from .cli import main
        except ModuleNotFoundError as error:
            if error.name != "click":
                raise
            print("error: the command line needs click, which is not installed: pip install click", file=sys.stderr)
            sys.exit(2)
        main()
    except KeyboardInterrupt:
        print(file=sys.stderr)
        sys.exit(130)
    finally:
        gc.freeze()


if __name__ == "__main__":
    main()
