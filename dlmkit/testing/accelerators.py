"""Checks on an accelerator, which is a pretend one: no part may take it for granted that it runs on
the CPU. See :mod:`dlmkit.testing.pretend`.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dlmkit.testing import pretend
from dlmkit.testing.outcome import CheckFailed, NotApplicable

RESULTS = "the results on an accelerator and on the CPU"
_NOT_THE_PART = (str(Path(torch.__file__).parent), pretend.__file__, "<")


@contextmanager
def accelerator() -> Iterator[torch.device]:
    """The block runs on a machine with an accelerator. What fails there is a failed check.

    Raises NotApplicable if this process cannot have one, or the block needs what a pretend
    accelerator has not.
    """
    try:
        pretend.set_up()
    except RuntimeError as error:
        raise NotApplicable(f"not checked on an accelerator: {error}") from error
    with pretend.accelerator() as device:
        try:
            yield device
        except pretend.MixedDevices as error:
            raise CheckFailed(f"{_where(error)}: {error}") from error
        except NotImplementedError as error:
            raise NotApplicable(f"not checked on an accelerator: {error}") from error


def _where(error: BaseException) -> str:
    """The innermost line that is neither torch's nor the device's."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_PART)]
    return f"{Path(lines[-1].filename).name}, line {lines[-1].lineno}"
