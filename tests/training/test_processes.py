"""Two real processes over gloo: DDP and FSDP2 train as one process does, and end together."""

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from launched import free_port, launch
from training_runs import metrics, saved_steps

from dlmkit.training.checkpoint import checkpoint_name, verify
from dlmkit.training.state import EMA, OPTIMISER, SHARDS, stored
from dlmkit.training.state import MODEL as WEIGHTS

pytestmark = pytest.mark.slow

STEPS = 10
MODEL = (
    "network.with.blocks=2", "train.batch_size=8", "train.steps=10", "train.log_every=1",
    "objective.with.self_conditioning=0.3",  # 3 of 8 rows: in some passes of one process alone
)  # fmt: skip
LAYOUTS = {
    "one": (1, ()),
    "accumulated": (1, ("train.micro_batch_size=2",)),
    "ddp": (2, ("train.micro_batch_size=2",)),
    "fsdp": (2, ("train.parallel=fsdp", "train.micro_batch_size=1")),
    "fsdp_recomputed": (2, ("train.parallel=fsdp", "train.activation_checkpointing=true")),
}
TENSORS = (WEIGHTS, EMA, OPTIMISER)
CHAIN = ((2, "fsdp", 3), (1, "ddp", 4), (2, "ddp", 6), (2, "fsdp", 8), (1, "ddp", STEPS))
"""(processes, train.parallel, step to stop after) of one run that changes its layout."""


def job(recipe: str, run: Path, size: int, *changes: str) -> tuple[int, list]:
    sets = [word for change in (*MODEL, *changes) for word in ("--set", change)]
    return size, ["train", recipe, "--out", run, "--resume", "auto", *sets]


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory) -> Path:
    """A folder with a run of every layout, and one that changes layouts."""
    folder = tmp_path_factory.mktemp("processes")
    jobs = [job(tiny, folder / n, size, *more) for n, (size, more) in LAYOUTS.items()]
    for size, parallel, stop in CHAIN:
        more = (f"train.parallel={parallel}", f"train.stop_after={stop}")
        jobs.append(job(tiny, folder / "chain", size, *more))
    codes = launch(jobs)
    assert codes == [[0] * size for size, _ in jobs]
    return folder


@pytest.mark.parametrize("layout", [*list(LAYOUTS)[1:], "chain"])
def test_every_layout_has_the_losses_of_one_process(runs, layout):
    for alone, other in zip(metrics(runs / "one"), metrics(runs / layout), strict=True):
        assert (other["kind"], other["step"]) == (alone["kind"], alone["step"])
        if alone["kind"] == "sample":
            continue
        assert other["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        if alone["kind"] == "train":
            assert other["gradient_norm"] == pytest.approx(alone["gradient_norm"], rel=1e-4)
            assert other["tokens"] == alone["tokens"]


@pytest.mark.parametrize("layout", [*list(LAYOUTS)[1:], "chain"])
def test_every_layout_writes_the_same_checkpoint(runs, layout):
    ends = [runs / name / "checkpoints" / checkpoint_name(STEPS) for name in ("one", layout)]
    files = [{str(p.relative_to(e)) for p in e.rglob("*") if p.is_file()} for e in ends]
    if layout.startswith("fsdp"):
        files[0] -= set(TENSORS)
        files[1] -= {f"{SHARDS}/shard-0000{n}-model-00001-of-00001.safetensors" for n in (1, 2)}
    assert files[0] == files[1]
    verify(ends[1])
    for name in TENSORS:
        one, other = (dict(stored(end, name).read()) for end in ends)
        assert set(one) == set(other)
        for key in one:
            torch.testing.assert_close(other[key], one[key], rtol=2e-3, atol=2e-5)


def test_the_average_is_not_the_weights(runs):
    end = runs / "fsdp" / "checkpoints" / checkpoint_name(STEPS)
    model, ema = (dict(stored(end, name).read()) for name in (WEIGHTS, EMA))
    assert not torch.equal(model["space.weight"], ema["space.weight"])
    assert torch.equal(model["schedule.u_edges"], ema["schedule.u_edges"])


HOOKS = """
    import os, signal, time
    import torch
    import torch.distributed as dist
    from datetime import timedelta

    SLEPT = []
    RANK, CASE = os.environ["RANK"], os.environ["CASE"]
    start = dist.init_process_group
    dist.init_process_group = lambda backend: start(backend, timeout=timedelta(seconds=4))

    def build():
        if CASE == "setup" and RANK == "1":
            from dlmkit.errors import DataError
            raise DataError("no such file on this node")

    def read(step):
        if CASE == "data" and RANK == "1" and step == 3:
            from dlmkit.errors import DataError
            raise DataError("shard 7 ends early")

    def forward(network, query, level):
        if not network.training:
            if CASE == "slow" and len(query) == 2 and not SLEPT:
                SLEPT.append(time.sleep(6))
            if CASE == "sampler" and len(query) == 2:
                raise ArithmeticError("a sampler's bug")
        elif torch.is_grad_enabled():
            if CASE == "nan" and RANK == "1":
                return query * float("nan")
            if CASE == "pass" and RANK == "1":
                raise ArithmeticError("a network's bug")
            if CASE == "signal" and RANK == "1":
                os.kill(os.getpid(), signal.SIGTERM)
"""
CASES = {
    "setup": (5, None, "process 1: no such file on this node"),
    "data": (5, 3, "process 1: shard 7 ends early"),
    "slow": (0, 8, "finished at step 8"),
    "sampler": (1, 4, "a sampler's bug"),
    "nan": (7, None, "the last checkpoint is none"),
    "signal": (75, 1, "SIGTERM: saved step 1 of 8"),
    "pass": (1, None, "a network's bug"),
}
"""Exit code of every process, the step it saved, and what the first one says."""


@pytest.fixture
def troubled(spied, site, tmp_path):
    (site / "hooks.py").write_text(textwrap.dedent(HOOKS))
    variables = {"SPIES": str(site / "hooks.py"), "PYTHONPATH": str(site)}

    def run(case: str, parallel: str) -> tuple[list[int], Path]:
        changes = (
            f"train.parallel={parallel}", "train.batch_size=8", "train.checkpoint_every=100",
            "train.validation_rows=4",
        )  # fmt: skip
        sets = [word for change in changes for word in ("--set", change)]
        words = ["train", spied, "--out", tmp_path / "run", *sets]
        (codes,) = launch([(2, words)], CASE=case, **variables)
        return codes, tmp_path / "run"

    return run


@pytest.mark.parametrize(
    ("case", "parallel"), list(zip(CASES, itertools.cycle(("fsdp", "ddp")), strict=False))
)
def test_trouble_in_one_process_is_told_once_and_ends_all_alike(troubled, case, parallel, capfd):
    """The groups time out after 4 seconds, and samples take 6: nobody waits inside a time limit."""
    code, step, message = CASES[case]
    codes, run = troubled(case, parallel)
    said = capfd.readouterr().err
    assert codes == [code, code], said
    assert said.count(message) == 1
    assert saved_steps(run)[-1:] == ([] if step is None else [step])


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_sigterm_to_one_worker_of_torchrun_saves_once_and_ends_all_with_75(
    tiny, tmp_path, parallel
):
    """torchrun itself ends with 1, whatever its workers end with, and reports their codes."""
    run = tmp_path / "run"
    changes = ("train.steps=100000", "train.checkpoint_every=100000", "train.batch_size=8",
               "train.log_every=1", f"train.parallel={parallel}")  # fmt: skip
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2",
        f"--master_port={free_port()}", "-m", "dlmkit", "train", tiny, "--out", str(run),
        *(word for change in changes for word in ("--set", change)),
    ]  # fmt: skip
    torchrun = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        _until(lambda: (run / "metrics.jsonl").exists() and metrics(run))
        os.kill(_worker(torchrun.pid, 1), signal.SIGTERM)
        said = torchrun.communicate(timeout=600)[1]
    finally:
        torchrun.kill()
    assert torchrun.returncode == 1
    assert said.count("exitcode  : 75") == 2
    assert said.count("SIGTERM: saved step") == 1
    assert len(saved_steps(run)) == 1


def _until(reached) -> None:
    deadline = time.monotonic() + 600
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _worker(launcher: int, rank: int) -> int:
    """The process id of torchrun's worker ``rank``."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}" in Path(f"/proc/{child}/environ").read_text().split("\0"):
            return int(child)
    raise AssertionError(f"no worker {rank}")


ONE_COUNTS = """
    import os
    from dlmkit.core.data import Data

    def refused(self, tokens, rows=512):
        raise ArithmeticError("another process than the first counted")

    if os.environ.get("RANK") == "1":
        Data.excerpt = refused
"""


@pytest.mark.parametrize("trained", ["true", "false"])
def test_a_table_that_starts_from_counts_is_counted_in_the_first_process_for_all(
    spied, site, tmp_path, trained
):
    (site / "hooks.py").write_text(textwrap.dedent(ONE_COUNTS))
    start = ("space.with.start=counts", "space.with.counts.tokens=20000",
             f"space.with.trained={trained}", "train.batch_size=8")  # fmt: skip
    layouts = {"one": (1, "ddp"), "ddp": (2, "ddp"), "fsdp": (2, "fsdp")}
    jobs = []
    for name, (size, parallel) in layouts.items():
        sets = [w for c in (*start, f"train.parallel={parallel}") for w in ("--set", c)]
        jobs.append((size, ["train", spied, "--out", tmp_path / name, *sets]))
    codes = launch(jobs, SPIES=str(site / "hooks.py"), PYTHONPATH=str(site))
    assert codes == [[0] * size for size, _ in layouts.values()]
    ends = [tmp_path / name / "checkpoints" / checkpoint_name(8) for name in layouts]
    for name in (WEIGHTS, EMA):
        one, *others = (dict(stored(end, name).read()) for end in ends)
        for other in others:
            for key in one:
                torch.testing.assert_close(other[key], one[key], rtol=2e-3, atol=2e-5)


def test_the_layout_is_recorded(runs):
    for name in ("one", "ddp", "fsdp"):
        content = json.loads((runs / name / "environment.json").read_text())
        assert content["parallel"] == ("alone" if name == "one" else name)


THREADS = """
from pathlib import Path
from dlmkit.training.parallel import world

def gloo():
    names = (file.read_text() for file in Path("/proc/self/task").glob("*/comm"))
    return [name for name in names if "gloo" in name]

with world() as processes:
    processes.share(1)
    assert gloo()
assert not gloo(), gloo()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are listed in /proc")
def test_no_thread_of_a_group_outlives_it_though_the_world_is_still_named(tmp_path):
    """One that holds a tensor while the interpreter ends aborts the process."""
    script = tmp_path / "threads.py"
    script.write_text(THREADS)
    command = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
