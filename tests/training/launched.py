"""Runs the program in real processes that talk over gloo, forked from one that has imported it.

``launched.py`` is a program too: it reads jobs as JSON from stdin, runs one after the other, and
writes their exit codes. torchrun starts its workers with the same variables in the environment.
"""

import importlib
import json
import os
import socket
import subprocess
import sys
from typing import Any

PROGRAMS = {
    # beside the program: a run's pictures and torch's parallel wrappers, 1.7 s of modules
    "dlmkit.cli.app": (
        "dlmkit.training.run", "matplotlib.backends.backend_agg", "torch._dynamo",
    ),
    "dlmkit_lm_eval.__main__": ("dlmkit_lm_eval.model", "lm_eval.__main__", "lm_eval.evaluator"),
}  # fmt: skip
"""Modules whose ``main`` reads the command line, and what is imported once, before any fork."""


def launch(
    jobs: list[tuple[int, list[Any]]],
    timeout: float = 300,
    program: str = "dlmkit.cli.app",
    **environment: str,
) -> list[list[int]]:
    """Run ``program`` for every (number of processes, arguments); exit codes of each, by rank."""
    text = json.dumps([(size, [str(word) for word in words]) for size, words in jobs])
    done = subprocess.run(
        [sys.executable, __file__, program], input=text, capture_output=True, text=True,
        timeout=timeout, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sys.stderr.write(done.stderr)
    codes: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return codes


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(program: str, size: int, words: list[str]) -> list[int]:
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
            os._exit(_main(program, words))
        children.append(child)
    return children


def _main(program: str, words: list[str]) -> int:
    os.dup2(2, 1)
    sys.argv = [program, *words]
    try:
        code: int = importlib.import_module(program).main()
        return code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def wait(children: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


if __name__ == "__main__":
    wanted = sys.argv[1]
    for module in (wanted, *PROGRAMS[wanted]):
        importlib.import_module(module)
    codes = [wait(start(wanted, size, words)) for size, words in json.load(sys.stdin)]
    print(json.dumps(codes))
