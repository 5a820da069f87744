"""``python -m dlmkit_lm_eval``: the harness's own program, which then knows the model `dlmkit`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run ``lm_eval`` with the words of the command line; errors of dlmkit are one line."""
    from dlmkit.errors import DlmkitError
    from dlmkit.shown import say

    try:
        from lm_eval.__main__ import cli_evaluate
    except ImportError as error:
        say(f"error: the harness cannot be imported ({error}): pip install 'dlmkit[lm-eval]'")
        return 4
    import dlmkit_lm_eval.model  # noqa: F401  which tells the harness of its model

    try:
        cli_evaluate()
    except DlmkitError as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
