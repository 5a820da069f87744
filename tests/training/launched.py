"""Runs the program in real processes that talk over gloo, forked from one that has imported it.

``launched.py`` is a program too: it reads jobs as JSON from stdin, runs one after the other, and
writes their exit codes. torchrun starts its workers with the same variables in the environment.
"""

import json
import os
import socket
import subprocess
import sys
from typing import Any


def launch(
    jobs: list[tuple[int, list[Any]]], timeout: float = 300, **environment: str
) -> list[list[int]]:
    """Run every (number of processes, arguments of dlmkit); the exit codes of each, by rank."""
    text = json.dumps([(size, [str(word) for word in words]) for size, words in jobs])
    done = subprocess.run(
        [sys.executable, __file__], input=text, capture_output=True, text=True, timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sys.stderr.write(done.stderr)
    codes: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return codes


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(size: int, words: list[str]) -> list[int]:
    """Fork the processes of one run; their ids by rank."""
    port, children = free_port(), []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            if size > 1:
                os.environ.update(
                    RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size),
                    MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
                )  # fmt: skip
            os._exit(_main(words))
        children.append(child)
    return children


def _main(words: list[str]) -> int:
    from dlmkit.cli.app import main

    os.dup2(2, 1)
    try:
        return main(words)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def wait(children: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


if __name__ == "__main__":
    # once, before any fork: a run's pictures and torch's optimisers import 1.7 s of modules
    import matplotlib.backends.backend_agg  # noqa: F401
    import torch._dynamo  # noqa: F401

    import dlmkit.training.run  # noqa: F401

    print(json.dumps([wait(start(size, words)) for size, words in json.load(sys.stdin)]))
