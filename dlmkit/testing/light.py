"""What has to stay quick, tried in a process of its own: listing and checking import no torch."""

from __future__ import annotations

import os
import subprocess
import sys

from dlmkit.testing.compare import require

IMPORTED = "; import sys; print(*{'torch', 'transformers'} & set(sys.modules))"


def without_torch(what: str, program: str, *arguments: str) -> None:
    """Raise CheckFailed, which says ``what`` was tried, if ``program``, a line of Python, fails in
    a fresh process with these ``arguments``, or has imported torch or transformers there."""
    done = subprocess.run(
        [sys.executable, "-c", program + IMPORTED, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    require(done.returncode == 0, f"{what} fails: {done.stderr[-300:]}")
    imported = done.stdout.split()
    require(not imported, f"{what} imports {' and '.join(imported)}; import it in the target")
