"""Runs the program in real processes that talk over gloo, forked from one that has imported it.

``launched.py`` is a program too: of every line of stdin, which holds jobs as JSON, it runs one
after the other, and answers with their exit codes. torchrun starts its workers with the same
variables in the environment.
"""

import importlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROGRAMS = {
    # beside the program: a run's pictures and torch's parallel wrappers, 1.7 s of modules
    "dlmkit.cli.app": (
        "dlmkit.training.run", "matplotlib.backends.backend_agg", "torch._dynamo",
    ),
    "dlmkit_lm_eval.__main__": ("dlmkit_lm_eval.model", "lm_eval.__main__", "lm_eval.evaluator"),
}  # fmt: skip
"""Modules whose ``main`` reads the command line, and what is imported once, before any fork."""


_running: dict[str, subprocess.Popen[str]] = {}
"""By program, the process that forks: one for all calls, for its imports take 5 s."""


def launch(
    jobs: list[tuple[int, list[Any]]],
    timeout: float = 300,
    program: str = "dlmkit.cli.app",
    **environment: str,
) -> list[list[int]]:
    """Run ``program`` for every (number of processes, arguments); exit codes of each, by rank."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    if program not in _running:
        _running[program] = subprocess.Popen(
            [sys.executable, __file__, program], text=True, env=variables,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
    asked, answers = _running[program].stdin, _running[program].stdout
    assert asked is not None
    assert answers is not None
    with tempfile.NamedTemporaryFile() as said:
        words = [(size, [str(word) for word in words]) for size, words in jobs]
        asked.write(f"{json.dumps([words, variables, str(Path.cwd()), said.name])}\n")
        asked.flush()
        in_time, _, _ = select.select([answers], [], [], timeout)
        answer = answers.readline() if in_time else ""
        sys.stderr.write(Path(said.name).read_text())
    if not answer:
        _running.pop(program).kill()
    codes: list[list[int]] = json.loads(answer)
    return codes


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(
    program: str, size: int, words: list[str], variables: dict[str, str], said: str
) -> list[int]:
    """Fork the processes of one run, which write to the file ``said``; their ids by rank."""
    port, children = free_port(), []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            os.environ.clear()
            os.environ.update(variables)
            if size > 1:
                os.environ.update(
                    RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size),
                    MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
                )  # fmt: skip
            os._exit(_main(program, words, said))
        children.append(child)
    return children


def _main(program: str, words: list[str], said: str) -> int:
    output = os.open(said, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
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
    wanted, answers = sys.argv[1], os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for module in (wanted, *PROGRAMS[wanted]):
        importlib.import_module(module)
    for line in sys.stdin:
        jobs, variables, place, said = json.loads(line)
        os.chdir(place)
        codes = [wait(start(wanted, size, words, variables, said)) for size, words in jobs]
        print(json.dumps(codes), file=answers, flush=True)
