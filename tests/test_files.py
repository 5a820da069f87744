"""What a recipe or an option may name: regular files, read to a limit, quoted to a line."""

import errno
import gzip
import os
from pathlib import Path

import pytest

from dlmkit import files
from dlmkit.cli.app import main
from dlmkit.cli.options import lines_of
from dlmkit.errors import DataError, DlmkitError
from dlmkit.evaluation.record import RECORD
from dlmkit.evaluation.texts import read_texts
from dlmkit.exits.certificate import Certificate
from dlmkit.recipe.yaml import read_file
from dlmkit.training.folder import MetricsFile, RunFolder
from dlmkit_metrics.pretrained import digest
from dlmkit_samplers.entropic import recorded
from dlmkit_text import shards, sources

READERS = {
    "recipe": lambda path: read_file(path, []),
    "prompts": lines_of,
    "certificate": Certificate.load,
    "record": RECORD.read,
    "texts": read_texts,
    "grid-numbers": recorded,
    "grid-tensors": lambda path: recorded(path.rename(path.with_suffix(".safetensors"))),
    "text-files": sources.read_text,
}


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    return tmp_path / "pipe.json"


@pytest.fixture
def zero(tmp_path):
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    return tmp_path / "zero.json"


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_a_device_that_never_ends(reader, zero):
    with pytest.raises(DlmkitError, match=r"zero\..* it is a device, not a file"):
        READERS[reader](zero)


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_a_pipe_into_which_nobody_writes(reader, pipe):
    with pytest.raises(DlmkitError, match="it is a pipe, not a file"):
        READERS[reader](pipe)


def test_a_link_to_a_file_is_a_file_and_a_link_to_a_device_is_none(tmp_path):
    (tmp_path / "text").write_text("words\r\nmore")
    (tmp_path / "good").symlink_to(tmp_path / "text")
    (tmp_path / "bad").symlink_to("/dev/zero")
    assert files.read_text(tmp_path / "good") == "words\nmore"
    with pytest.raises(OSError, match="it is a device, not a file"):
        files.read_bytes(tmp_path / "bad")


def test_a_file_is_read_to_the_limit_and_no_further(tmp_path):
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(2**40)  # a terabyte that takes no room
    with pytest.raises(OSError, match="it has more than 67,108,864 bytes"):
        files.read_bytes(big)
    big.write_bytes(b"1234")
    assert files.read_bytes(big, limit=4) == b"1234"


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_no_file_can_have_is_an_error_of_the_system_like_any_other(name):
    with pytest.raises(OSError, match="no file can have this name"):
        files.read_bytes(Path(name))


def begin(run):
    with run.locked():
        run.write_recipe("a: 1\n")
        run.rewind(0)


@pytest.mark.parametrize("name", [".lock", ".recipe.yaml.new", ".metrics.jsonl.new"])
def test_a_run_is_written_through_no_link_that_its_folder_holds(tmp_path, name):
    """A stranger's run may hold links; going on in it must not write where they lead."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    (run.path / name).symlink_to(precious)
    with pytest.raises(DlmkitError, match="it is a link, which nothing is written through"):
        begin(run)
    assert precious.read_text() == "mine"


def test_metrics_are_appended_through_no_link(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "precious")
    with pytest.raises(DlmkitError, match="it is a link, which nothing is written through"):
        MetricsFile(RunFolder(tmp_path))


def test_a_quotation_is_short_printable_and_closed():
    assert files.quoted("short") == "'short'"
    assert files.quoted("\x1b]52;c;aGk=\x07") == r"'\x1b]52;c;aGk=\x07'"
    long = files.quoted("x" * 10**6)
    assert len(long) == 60
    assert long.endswith("...'")


def test_a_file_of_secrets_named_by_extends_is_quoted_to_a_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    secret = "".join(f"user{i}:x:{i}:{i}::/home/user{i}:/bin/sh\n" for i in range(30))
    Path("passwd").write_text(secret)
    Path("r.yaml").write_text("extends: ./passwd\n")
    assert main(["recipe", "check", "r.yaml"]) == 3
    said = capsys.readouterr().err
    assert "passwd:1:1: a recipe is a mapping" in said
    assert "user0" in said
    assert "user3" not in said


def test_a_prompt_that_does_not_fit_is_quoted_to_a_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("prompts").write_text("secret " * 1000)
    assert main(["sample", "ddlm-mini", "--prompts", "prompts"]) == 2
    assert len(capsys.readouterr().err) < 300


def test_a_small_packed_file_that_unpacks_to_one_endless_line_is_refused(tmp_path, monkeypatch):

    monkeypatch.setattr(shards, "_LONGEST", 1000)
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b'{"text": "fine"}\n' + b" " * 2000))
    documents = shards.JsonShards([path], "bomb").read(0)
    assert next(documents) == "fine"
    with pytest.raises(DataError, match="line 2 unpacks to more than 1,000 bytes"):
        next(documents)


def test_copying_a_recipe_and_hashing_a_judge_wait_for_no_pipe(pipe, tmp_path, capsys):
    recipe = pipe.rename(tmp_path / "r.yaml")
    assert main(["recipe", "cp", str(recipe), str(tmp_path / "copy.yaml")]) == 3
    assert "it is a pipe, not a file" in capsys.readouterr().err
    os.mkfifo(tmp_path / "more.json")
    assert digest(tmp_path)


def test_a_new_file_is_whole_or_absent_and_replaces_nothing(tmp_path, monkeypatch):
    path = tmp_path / "new.json"
    files.write_new(path, "whole")
    assert path.read_text() == "whole"
    with pytest.raises(FileExistsError):
        files.write_new(path, "another")
    assert path.read_text() == "whole"

    def no_links(*_):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(FileExistsError):
        files.write_new(path, "another")
    files.write_new(tmp_path / "b", "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "new.json"]
    with pytest.raises(UnicodeEncodeError):
        files.write_new(tmp_path / "c", "\ud800")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "new.json"]
