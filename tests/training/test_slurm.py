"""The SLURM script, with commands in SLURM's place that note what they are asked."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "recipes" / "slurm" / "train.sbatch"
COMMANDS = {
    "scontrol": '[ "$1" = show ] && { echo node7; echo node8; } || echo "$@" >> "$NOTES/scontrol"',
    "scancel": 'echo "$@" >> "$NOTES/scancel"; kill -TERM "$(cat "$NOTES/pid")"',
    "srun": """
        trap 'exit 1' TERM
        echo "$@" > "$NOTES/srun.new"; echo $$ > "$NOTES/pid"; mv "$NOTES/srun.new" "$NOTES/srun"
        [ -n "$CODE" ] && exit $CODE
        while :; do sleep 0.05; done
    """,
}


@pytest.fixture
def submit(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, source in COMMANDS.items():
        (folder / name).write_text(f"#!/bin/bash\n{source}\n")
        (folder / name).chmod(0o755)

    def start(*words: str, code: str = "") -> subprocess.Popen:
        job = {"SLURM_JOB_ID": "12", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "8"}
        path = f"{folder}:{os.environ['PATH']}"
        return subprocess.Popen(
            ["bash", SCRIPT, *words], stderr=subprocess.PIPE, text=True,
            env={**os.environ, **job, "SLURM_JOB_NODELIST": "node[7-8]", "PATH": path,
                 "NOTES": str(tmp_path), "CODE": code},
        )  # fmt: skip

    return start


def notes(folder: Path, name: str) -> str | None:
    return (folder / name).read_text().strip() if (folder / name).exists() else None


@pytest.mark.parametrize("code", [0, 1])
def test_the_job_ends_as_its_step_ends(submit, tmp_path, code):
    job = submit("r.yaml", "/runs/r", "--set", "train.parallel=fsdp", code=str(code))
    assert job.wait(300) == code
    assert notes(tmp_path, "scontrol") is None
    asked = notes(tmp_path, "srun")
    assert asked.startswith("torchrun --nnodes=2 --nproc_per_node=8 ")
    assert "--rdzv_endpoint=node7:29500 -m dlmkit train r.yaml --out /runs/r --resume auto" in asked
    assert asked.endswith("--set train.parallel=fsdp")


def test_a_job_that_is_stopped_goes_back_into_the_queue(submit, tmp_path):
    job = submit("r.yaml", "/runs/r")
    deadline = time.monotonic() + 300
    while notes(tmp_path, "srun") is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert job.wait(300) == 0
    assert notes(tmp_path, "scancel") == "--signal=TERM 12.0"
    assert notes(tmp_path, "scontrol") == "requeue 12"


def test_too_few_words_are_told(submit):
    job = submit("r.yaml")
    assert job.wait(300) == 2
    assert "RECIPE RUN" in job.stderr.read()
