"""What tests of commands share: the program, run in this process."""

import pytest

from dlmkit.cli.app import main


@pytest.fixture
def call(capsys):
    """Runs the program; gives (exit code, stdout, stderr on one line)."""

    def run(*words):
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, " ".join(captured.err.split())

    return run
