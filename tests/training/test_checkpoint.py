"""Checkpoints are complete or absent, and no altered byte is read."""

import errno
import json
import os
import resource
import shutil
import sys
from pathlib import Path

import pytest
from training_runs import dlmkit, saved_steps

from dlmkit.errors import CheckpointError
from dlmkit.training import checkpoint
from dlmkit.training.checkpoint import (
    checkpoint_name,
    checkpoints,
    find,
    prune,
    publish,
    set_aside,
    sweep,
    verify,
    whole_ones,
)


def write(folder: Path) -> None:
    (folder / "training").mkdir()
    (folder / "model.bin").write_bytes(bytes(range(200)))
    (folder / "training" / "state.json").write_text('{"step": 1}')


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def run(tmp_path):
    """A run folder with checkpoints of steps 1, 2 and 3."""
    for step in (1, 2, 3):
        publish(tmp_path / "checkpoints", step, write)
    return tmp_path


def newest(run: Path) -> Path:
    return run / "checkpoints" / checkpoint_name(3)


def test_what_is_published_verifies_and_is_found(run):
    assert files(newest(run)) == ["manifest.json", "model.bin", "training/state.json"]
    assert find(run) == find(run / "checkpoints") == find(newest(run)) == newest(run)
    manifest = json.loads((newest(run) / "manifest.json").read_text())
    assert manifest["files"]["model.bin"]["size"] == 200


def test_every_flipped_byte_of_every_file_is_noticed(run):
    folder = newest(run)
    for name in files(folder):
        path = folder / name
        content = path.read_bytes()
        for place in range(len(content)):
            path.write_bytes(
                content[:place] + bytes([content[place] ^ 0x20]) + content[place + 1 :]
            )
            with pytest.raises(CheckpointError, match=r"altered|cannot be read|is missing|format"):
                verify(folder)
        path.write_bytes(content)
    verify(folder)


@pytest.mark.parametrize("name", ["manifest.json", "model.bin", "training/state.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "longer", "gone", "folder"])
def test_damage_is_named_and_the_newest_whole_one_offered(run, name, damage):
    path = newest(run) / name
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes({"cut": content[:-1], "empty": b"", "longer": content + b" "}[damage])
    shutil.rmtree(run / "checkpoints" / checkpoint_name(2) / "training")
    with pytest.raises(CheckpointError) as error:
        find(run)
    assert error.value.exit_code == 6
    assert str(path) in str(error.value)
    offered = run / "checkpoints" / checkpoint_name(1)
    assert f"newest earlier checkpoint that is whole is {offered}" in str(error.value)
    assert find(offered) == offered


def test_a_renamed_checkpoint_is_not_taken_for_another_step(run):
    os.rename(newest(run), newest(run).with_name(checkpoint_name(9)))
    with pytest.raises(CheckpointError, match="renamed"):
        find(run)


def test_nothing_to_find(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find(tmp_path)


class Killed(BaseException):
    """What no cleaning up sees."""


class Killer:
    """Raises Killed at the n-th change of the disk under ``folder``; an audit hook."""

    def __init__(self) -> None:
        self.folder, self.left = "", -1

    def __call__(self, event: str, arguments: tuple) -> None:
        changes = ("open", "os.mkdir", "os.rename", "os.rmdir", "os.remove")
        if self.left >= 0 and event in changes and str(arguments[0]).startswith(self.folder):
            self.strike()

    def strike(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


KILLER = Killer()
sys.addaudithook(KILLER)


def killed_at(n: int, parent: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Save step 2 with a kill at the n-th change; False if the save had fewer."""
    fsync = os.fsync

    def sync(descriptor: int) -> None:
        KILLER.strike()
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", sync)
        KILLER.folder, KILLER.left = str(parent), n
        try:
            publish(parent, 2, write)
            prune(parent, 1, ())
        except Killed:
            return True
        finally:
            KILLER.left = -1
        return False


def test_a_save_killed_at_any_point_leaves_whole_checkpoints(tmp_path, monkeypatch):
    n, published = 0, 0
    while True:
        parent = tmp_path / str(n)
        publish(parent, 1, write)
        if not killed_at(n, parent, monkeypatch):
            break
        found = checkpoints(parent)
        assert found == list(whole_ones(parent))[::-1]
        assert found
        published += found[-1].name == checkpoint_name(2)
        sweep(parent)
        assert sorted(path.name for path in parent.iterdir()) == [p.name for p in found]
        if len(found) == 1 and found[0].name == checkpoint_name(1):
            publish(parent, 2, write)
        assert find(parent).name == checkpoint_name(2)
        n += 1
    assert n > 15
    assert 0 < published < n


def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(run, tmp_path):
    def fill(folder: Path) -> None:
        write(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CheckpointError, match=r"No space left on device; the last .*3, is"):
        publish(run / "checkpoints", 4, fill)
    assert [p.name for p in (run / "checkpoints").iterdir() if p.name.startswith(".")] == []
    assert find(run) == newest(run)


def test_a_file_size_limit_hit_by_the_tensors_library_is_a_full_disk(tiny, tmp_path, capsys):
    run = tmp_path / "run"
    assert dlmkit("train", tiny, "--out", run, "--set", "train.stop_after=2") == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        code = dlmkit("train", tiny, "--out", run, "--resume", "auto")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 6
    message = capsys.readouterr().err
    assert "step-00000004 could not be saved" in message
    assert "step-00000002, is intact" in message
    assert saved_steps(run) == [2]
    assert dlmkit("train", tiny, "--out", run, "--resume", "auto") == 0


def test_metrics_that_do_not_fit_end_the_run_as_a_full_disk_does(tiny, tmp_path, capsys):
    """With a torn last line, which must not stop the curves from being told about either."""
    run = tmp_path / "run"
    assert dlmkit("train", tiny, "--out", run, "--set", "train.stop_after=2") == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = (run / "recipe.yaml").stat().st_size  # less than what an environment takes
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        code = dlmkit("train", tiny, "--out", run, "--resume", "auto")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 6
    message = capsys.readouterr().err
    assert "could not be written: File too large; no checkpoint was touched" in message
    assert saved_steps(run) == [2]
    assert dlmkit("train", tiny, "--out", run, "--resume", "auto") == 0


def test_pruning_keeps_the_last_and_the_best(tmp_path):
    for step in range(1, 7):
        publish(tmp_path, step, write)
    prune(tmp_path, 2, (3,))
    assert [path.name for path in checkpoints(tmp_path)] == [checkpoint_name(s) for s in (3, 5, 6)]
    prune(tmp_path, 5, ())
    assert len(checkpoints(tmp_path)) == 3


def test_what_is_there_is_not_overwritten(run):
    before = (newest(run) / "manifest.json").read_bytes()
    with pytest.raises(CheckpointError, match="could not be saved"):
        publish(run / "checkpoints", 3, write)
    assert (newest(run) / "manifest.json").read_bytes() == before
    assert find(run) == newest(run)


def test_a_damaged_one_that_is_set_aside_is_not_found_and_not_lost(run):
    (newest(run) / "model.bin").write_bytes(b"")
    aside = set_aside(newest(run))
    assert find(run).name == checkpoint_name(2)
    assert files(aside) == ["manifest.json", "model.bin", "training/state.json"]
