"""Two real processes over gloo write and read checkpoints in parts, and nothing is ever whole."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from launched import launch
from safetensors import safe_open
from training_runs import dlmkit, metrics, saved_steps, state

from dlmkit.errors import CheckpointError
from dlmkit.training.checkpoint import checkpoint_name, verify
from dlmkit.training.shards import Shards
from dlmkit.training.state import EMA, MODEL, OPTIMISER, SHARDS, stored

pytestmark = pytest.mark.slow

FILES = (MODEL, EMA, OPTIMISER)
FSDP = ("train.parallel=fsdp", "train.batch_size=8", "train.sample_every=100")


def job(recipe, run, *changes, resume="auto"):
    sets = [word for change in (*FSDP, *changes) for word in ("--set", change)]
    return 2, ["train", recipe, "--out", run, "--resume", resume, *sets]


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """``straight`` to step 8; ``later``, with checkpoints written meanwhile; ``resumed`` at 4."""
    folder = tmp_path_factory.mktemp("shards")
    jobs = [
        job(tiny, folder / "straight"),
        job(tiny, folder / "later", "train.checkpoint_async=true"),
        job(tiny, folder / "resumed", "train.stop_after=4"),
        job(tiny, folder / "resumed"),
    ]
    assert launch(jobs) == [[0, 0]] * len(jobs)
    return folder


@pytest.mark.parametrize("name", ["later", "resumed"])
def test_a_run_is_the_straight_one_bit_for_bit(runs, name):
    assert saved_steps(runs / name) == [4, 6, 8]
    for step in (4, 8):
        assert state(runs / name, step) == state(runs / "straight", step)
    assert metrics(runs / name) == metrics(runs / "straight")


def joined(folder):
    """The tensors of shards, put together from what the files say of themselves."""
    whole, parts = {}, {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            places = json.loads(file.metadata()["DCP_SHARDING_INFO"])
            for name in file.keys():  # noqa: SIM118
                parts.setdefault(name, []).append(
                    (places[name]["saved_offsets"], file.get_tensor(name))
                )
    for name, found in parts.items():
        tensors = [tensor for _, tensor in sorted(found, key=lambda part: part[0])]
        whole[name] = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
    return whole


def test_every_process_wrote_its_part_and_one_process_reads_them_all(runs, tmp_path, capsys):
    folder = runs / "straight" / "checkpoints" / checkpoint_name(8)
    verify(folder)
    sizes = [path.stat().st_size for path in sorted((folder / SHARDS).iterdir())]
    assert len(sizes) == 2
    assert max(sizes) < 0.7 * sum(sizes)
    read = {f"model/{name}": tensor for name, tensor in stored(folder, MODEL).read()}
    whole = {n: t for n, t in joined(folder / SHARDS).items() if n.startswith("model/")}
    assert read.keys() == whole.keys()
    assert all(torch.equal(read[name], whole[name]) for name in whole)
    assert dlmkit("export", runs / "straight", tmp_path / "out") == 0
    assert (tmp_path / "out" / MODEL).is_file()
    drawn = []
    for model in (runs / "straight", tmp_path / "out"):
        capsys.readouterr()
        assert dlmkit("sample", model, "-n", "1", "--json") == 0
        drawn.append(json.loads(capsys.readouterr().out)[0]["text"])
    assert drawn[0] == drawn[1]


ROUND = """
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import torch

from dlmkit.recipe.assemble import assemble
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry
from dlmkit.training import shards
from dlmkit.training.learner import Learner
from dlmkit.training.parallel import world
from dlmkit.training.saving import Saving
from dlmkit.training.state import restore, sharded, tensors_of, write_checkpoint

shards.PIECE = 1 << 20
recipe, source, target, sets = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:]


@contextmanager
def peak(what):
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
    before = held("VmRSS")
    yield
    say(what, held("VmHWM") - before)


def say(what, size):
    # one write a line: two processes share the pipe, and print writes text and end apart
    os.write(1, f"{what} {size / 2**20:.1f}\\n".encode())


def held(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


registry = Registry.load()
config = load_recipe(str(recipe), sets, registry).config
with world("fsdp") as processes:
    parts = assemble(config, registry)
    learner = Learner.begin(parts.objective, config.train, processes)

    def save(place):
        def write(folder):
            text = (Path(source) / "recipe.yaml").read_text() if source != "-" else "-"
            write_checkpoint(folder, {}, learner, text, parts.tokenizer, progress)

        Saving.begin(place, 4, sharded(tensors_of(learner)), write, processes, False).publish()

    progress = {}
    if source != "-":
        progress = restore(learner, Path(source), processes)
        save(target)
    else:
        for weight in learner.objective.parameters():
            moments = {key: torch.ones_like(weight) for key in ("exp_avg", "exp_avg_sq")}
            learner.optimiser.state[weight] |= moments | {"step": torch.ones(())}
        say("weights", sum(weight.nbytes for weight in learner.objective.parameters()))
        for _ in range(2):  # the first save imports
            save(target := target.with_name(target.name + "-"))
        with peak("save"):
            save(target := target.with_name(target.name + "-"))
        restore(learner, target, processes)
        with peak("restore"):
            restore(learner, target, processes)
"""


def round_trip(recipe, source, target, *sets):
    script = target.parent / "round.py"
    script.write_text(ROUND)
    command = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = subprocess.run(
        [*command, script, recipe, source, target, *sets],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_from_whole_to_shards_and_back_every_bit_stays(tiny, tmp_path):
    alone, parts = tmp_path / "alone", tmp_path / "step-00000004"
    assert dlmkit("train", tiny, "--out", alone, "--set", "train.stop_after=4") == 0
    whole = alone / "checkpoints" / checkpoint_name(4)
    round_trip(tiny, whole, parts)
    for name in FILES:
        one, other = (dict(stored(folder, name).read()) for folder in (whole, parts))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    sets = ("--set", "train.stop_after=6")
    for name, source in (("again", whole), ("back", parts)):
        words = ("train", tiny, "--out", tmp_path / name, "--resume", source, *sets)
        assert dlmkit(*words) == 0
    tensors = [state(tmp_path / name, 6) for name in ("again", "back")]
    assert all(tensors[0][key] == tensors[1][key] for key in tensors[0] if key != "state")


def test_neither_saving_nor_restoring_holds_much_beside_a_processs_part(tiny, tmp_path):
    """Gathered, the first process would hold four times the weights."""
    wide = ("network.with.width=384", "network.with.heads=4", "network.with.blocks=4")
    said = round_trip(tiny, "-", tmp_path / "step-00000004", *wide)
    weights = float(next(value for key, value in said if key == "weights"))
    rises = {(key, float(value)) for key, value in said if key != "weights"}
    assert weights > 20
    assert {key for key, _ in rises} == {"save", "restore"}
    assert all(rise < 0.6 * weights for _, rise in rises), (weights, rises)


HOOKS = """
    import errno, os, signal
    import safetensors.torch
    from dlmkit.training.checkpoint import Draft

    RANK, CASE, SAVES = os.environ["RANK"], os.environ["CASE"], []
    save, publish = safetensors.torch.save, Draft.publish

    def once(case):
        if CASE != case or os.path.exists(os.environ["DONE"]):
            return False
        return not open(os.environ["DONE"], "x").close()

    def counted(*arguments, **more):
        SAVES.append(1)
        if RANK == "1" and len(SAVES) == 2:
            if once("killed"):
                os.kill(os.getpid(), signal.SIGKILL)
            if once("full"):
                raise OSError(errno.ENOSPC, "No space left on device")
        return save(*arguments, **more)

    def published(draft, step, entries):
        if step == 4 and once("unnamed"):
            os.kill(os.getpid(), signal.SIGKILL)
        publish(draft, step, entries)

    safetensors.torch.save, Draft.publish = counted, published
"""


@pytest.mark.parametrize("case", ["killed", "unnamed", "full"])
def test_a_save_that_fails_in_one_process_loses_nothing(spied, site, tmp_path, runs, case, capfd):
    """Killed while it writes, killed before the folder has its name, or out of room."""
    (site / "hooks.py").write_text(textwrap.dedent(HOOKS))
    variables = {"SPIES": str(site / "hooks.py"), "PYTHONPATH": str(site)}
    run, done = tmp_path / "run", tmp_path / "done"
    jobs = [job(spied, run)] * 2
    failed, again = launch(jobs, CASE=case, DONE=str(done), **variables)
    assert (done.exists(), again) == (True, [0, 0])
    said = capfd.readouterr().err
    assert f"going on from {run / 'checkpoints' / checkpoint_name(2)}\n" in said
    if case == "full":
        assert failed == [6, 6]
        assert "step-00000004 could not be saved: No space left on device" in said
        assert "step-00000002, is intact" in said
    else:
        assert failed[case == "killed"] == -9
    assert not list((run / "checkpoints").glob(".saving-*"))
    ends = [state(where, 8) for where in (run, runs / "straight")]
    assert all(ends[0][key] == ends[1][key] for key in ends[1] if key != "state")


def test_a_part_that_is_missing_or_no_part_is_refused(runs, tmp_path):
    source = runs / "straight" / "checkpoints" / checkpoint_name(8) / SHARDS
    names = sorted(path.name for path in source.iterdir())
    for case, content in (("short", None), ("cut", b"\x08\0\0\0\0\0\0\0{}")):
        folder = tmp_path / case
        folder.mkdir()
        (folder / names[1]).write_bytes((source / names[1]).read_bytes())
        if content:
            (folder / names[0]).write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{case}.*(a part is missing|cannot be read)"):
            Shards(folder, "model/")
