"""Streams that are closed, full or no longer read: one message, the documented code."""

import os
import subprocess
import sys

import pytest

from dlmkit.cli import app
from dlmkit.cli.app import main

LIST = f"{sys.executable} -m dlmkit recipe ls"


def shell(command):
    return subprocess.run(("sh", "-c", command), capture_output=True, text=True, timeout=300)


def test_standard_output_closed():
    done = shell(f"{LIST} >&-")
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output is closed, so results have nowhere to go")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("more", ["", " --json"])
def test_standard_output_on_a_full_disk(more):
    done = shell(f"{LIST}{more} > /dev/full")
    assert done.returncode == 2
    assert done.stderr == (
        "error: the results cannot be written to standard output: No space left on device\n"
    )


def test_a_reader_that_has_seen_enough():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        (sys.executable, "-m", "dlmkit", "recipe", "ls"), stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_talk_that_goes_nowhere_changes_neither_results_nor_the_code():
    loud = shell(f"{LIST} --json")
    for stderr in ("2>&-", "2>/dev/full"):
        quiet = shell(f"{LIST} --json {stderr}")
        assert (quiet.returncode, quiet.stdout) == (0, loud.stdout)
        assert shell(f"{sys.executable} -m dlmkit recipe check nosuch {stderr}").returncode == 3


@pytest.mark.parametrize("name", sorted(app.REFUSED | app.IMPOSSIBLE))
def test_what_the_system_refuses_is_one_sentence_and_usage(name, monkeypatch, capsys):
    def refuse(*words, **settings):
        raise OSError(name, os.strerror(name), "/some/file")

    monkeypatch.setattr(app, "app", refuse)
    assert main([]) == 2
    err = capsys.readouterr().err
    if name in app.IMPOSSIBLE:
        assert err == f"error: no file can be called '/some/file': {os.strerror(name)}\n"
    else:
        assert err.startswith(f"error: /some/file: {os.strerror(name)}: the system refused it")
