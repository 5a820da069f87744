"""Two processes against two independent runs; the time to the first step.

    python benchmarks/two_processes.py --out two_processes.json
    python benchmarks/two_processes.py --recipe ddlm_medium --rounds 1 --set train.batch_size=8

Rounds alternate between one run of two processes (torchrun, gloo, one thread each) and two runs of
one thread at the same time, which have nothing to do with each other. Every process takes as many
rows a step in both, and starts its clock once both are warm. The ratio is that of the tokens per
second of both processes together. Then `dlmkit train` is started, with prepared data, and timed
until it reports its first step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WARM_UP = 3
RUN = (sys.executable, "-m", "dlmkit")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    options = parser().parse_args(arguments)
    if options.worker is not None:
        # not printed: two processes of torchrun may print into one another's lines
        result = options.worker.parent / f"{os.getpid()}.json"
        result.write_text(json.dumps(work(options)))
        return 0
    rounds = [measured(options) for _ in range(options.rounds)]
    outcome = {
        "recipe": options.recipe,
        "set": options.set,
        "rounds": rounds,
        "ratio": statistics.median(r["together"] / r["apart"] for r in rounds),
        "first_step_seconds": first_step(options),
    }
    if options.out is not None:
        options.out.write_text(json.dumps(outcome, indent=1) + "\n")
    print(report(outcome))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--recipe", default="ddlm_small")
    made.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--steps", type=int, default=30, help="timed steps of a round")
    made.add_argument("--out", type=Path, help="JSON file")
    made.add_argument("--worker", type=Path, help=argparse.SUPPRESS)  # where its peers meet it
    return made


def work(options: argparse.Namespace) -> dict[str, float]:
    """One process of a round: warm up, wait for the other, train, say how fast."""
    from dlmkit.recipe.assemble import assemble
    from dlmkit.recipe.load import load_recipe
    from dlmkit.registry.lookup import Registry
    from dlmkit.training.loop import Learner, train
    from dlmkit.training.memory import keep_freed
    from dlmkit.training.parallel import world

    registry = Registry.load()
    config = load_recipe(options.recipe, options.set, registry).config
    with world() as processes:
        config = with_rows(config, config.train.batch_size * processes.size)
        assembly = assemble(config, registry)
        assert assembly.data is not None
        stream = assembly.data.stream(config.seed, config.train.batch_size)
        learner = Learner.begin(assembly.objective, config.train, processes)
        keep_freed()
        steps = train(learner, stream, config.train, config.seed, processes)
        for _ in range(WARM_UP):
            next(steps)
        meet(options.worker)
        began, cpu = time.perf_counter(), time.process_time()
        tokens = sum(next(steps).tokens for _ in range(options.steps)) / processes.size
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        return {"tokens": tokens, "seconds": seconds, "cpu_seconds": cpu}


def with_rows(config: Any, rows: int) -> Any:
    """The recipe with a global batch of ``rows``."""
    train = config.train.model_copy(update={"batch_size": rows})
    return config.model_copy(update={"train": train})


def meet(folder: Path) -> None:
    """Wait until as many processes as the folder is named after are here."""
    expected = int(folder.name)
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < expected:
        time.sleep(0.01)


def launch(options: argparse.Namespace, before: Sequence[str], meeting: Path) -> Any:
    """A process, or torchrun's two, that run :func:`work`."""
    sets = [argument for value in options.set for argument in ("--set", value)]
    recipe = ("--recipe", options.recipe, "--steps", str(options.steps))
    command = (*before, __file__, "--worker", str(meeting), *recipe, *sets)
    return subprocess.Popen(command, env=ONE_THREAD)


def workers(
    options: argparse.Namespace, starts: Sequence[Sequence[str]], processes: int
) -> list[Any]:
    """Start every command at once, ``processes`` workers in all, and wait for their results.

    Raises CalledProcessError if one failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / str(processes)
        meeting.mkdir()
        started = [launch(options, before, meeting) for before in starts]
        for process in started:
            if process.wait():
                raise subprocess.CalledProcessError(process.returncode, process.args)
        return [json.loads(path.read_text()) for path in Path(folder).glob("*.json")]


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """One round: tokens per second of both processes, in one run and in two."""
    together = workers(options, [TORCHRUN], 2)
    apart = workers(options, [(sys.executable,)] * 2, 2)
    return {
        "together": sum(r["tokens"] / r["seconds"] for r in together),
        "apart": sum(r["tokens"] / r["seconds"] for r in apart),
        "workers": {"together": together, "apart": apart},
    }


def first_step(options: argparse.Namespace) -> float:
    """Seconds from the command to the report of its first step; the data is prepared before."""
    sets = [argument for value in options.set for argument in ("--set", value)]
    subprocess.run(
        [*RUN, "train", options.recipe, *sets, "--dry-run"], check=True, stdout=subprocess.DEVNULL
    )
    with tempfile.TemporaryDirectory() as folder:
        out = ("--out", f"{folder}/run", "--set", "train.log_every=1")
        began = time.perf_counter()
        process = subprocess.Popen(
            [*RUN, "train", options.recipe, *sets, *out], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        seconds = next(
            (time.perf_counter() - began for line in process.stderr if line.startswith("step 1/")),
            float("nan"),
        )
        process.terminate()
        process.stderr.read()
        process.wait()
    return seconds


def report(measured: dict[str, Any]) -> str:
    """The numbers in words."""
    rounds = ", ".join(f"{r['together']:.0f} / {r['apart']:.0f}" for r in measured["rounds"])
    return "\n".join(
        (
            f"{measured['recipe']}: two processes reach {measured['ratio']:.3f} of two "
            "independent runs",
            f"  tokens per second, together / apart: {rounds}",
            f"  first step after {measured['first_step_seconds']:.1f} s",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
