"""``python -m gpt2_np.evaluation``: lm-evaluation-harness's own command line, where ``--model gpt2_np`` is known.

The harness finds models of other packages by their entry points from its releases after 0.4.13 on; that one knows only
those that something has imported.
"""

from __future__ import annotations

import sys

from ..system.errors import in_words


def main() -> None:
    """Register the model, then do what ``lm_eval`` does.

    Exit status 2, with one line, where that isn't installed, and for what can't be asked for.
    """
    try:
        from gpt2_np.evaluation import HarnessModel as HarnessModel
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except (ValueError, OSError) as error:
        print(f"error: {in_words(error)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
