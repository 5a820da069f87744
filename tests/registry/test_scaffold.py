"""`dlmkit plugins new`: packages of every kind, complete and working as they are written."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic_core import from_json

from dlmkit.cli.app import main
from dlmkit.plugin import KINDS


def make(name: str, kind: str, capsys) -> Path:
    assert main(["plugins", "new", name, "--kind", kind]) == 0
    return Path(capsys.readouterr().out.strip())


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_works_as_it_is(kind, here, install_folder, capsys):
    folder = make("Fresh-1.x", kind, capsys)
    install_folder(here / folder)
    assert main(["plugins", "check", "Fresh-1.x", "--json"]) == 0
    outcomes = from_json(capsys.readouterr().out)
    assert any(o["component"].startswith(f"{kind}/") for o in outcomes)
    assert main(["recipe", "check", "Fresh-1.x:demo"]) == 0
    capsys.readouterr()
    overrides = ("train.steps=2", "sample.steps=4", "sample.measured=2", "train.validation_rows=4")
    sets = [word for override in overrides for word in ("--set", override)]
    assert main(["train", "Fresh-1.x:demo", "--out", "run", *sets]) == 0
    assert main(["sample", "run", "-n", "1"]) == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("kind", KINDS)
def test_its_files_are_clean(kind, here, capsys):
    folder = make("fresh", kind, capsys)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["dlmkit"] == {"fresh": "dlmkit_fresh.plugin"}
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert names == sorted(
        [
            ".github/workflows/test.yml",
            "README.md",
            "dlmkit_fresh/__init__.py",
            "dlmkit_fresh/demo.yaml",
            "dlmkit_fresh/plugin.py",
            f"dlmkit_fresh/{kind}.py",
            "pyproject.toml",
            "tests/test_conformance.py",
        ]
    )
    assert not [p for p in folder.rglob("*") if p.is_file() and "$" in p.read_text()]
    rules = Path(__file__).parents[2] / "pyproject.toml"
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--config", str(rules), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_a_new_importer_is_clean_and_passes_the_kit(here, install_folder, capsys):
    folder = make("fresh-family", "importer", capsys)
    rules = Path(__file__).parents[2] / "pyproject.toml"
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--config", str(rules), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    install_folder(here / folder)
    assert main(["plugins", "check", "fresh-family", "--json"]) == 0
    outcomes = from_json(capsys.readouterr().out)
    states = {o["check"]: o["outcome"] for o in outcomes if o["component"] == "importer/tiny"}
    assert len(states) == 8
    assert set(states.values()) == {"passed"}
    assert main(["models", "known"]) == 0
    assert "tiny" in capsys.readouterr().out
    assert main(["models", "verify", str(folder / "dlmkit_fresh_family" / "golden")]) == 0


@pytest.mark.parametrize(
    "name",
    ["", "a b", "-a", "a-", ".", "../a", "a/b", "a:b", "é", "a\n", "cdcd", "dlmkit", "recipe"],
)
def test_names_that_cannot_be(name, here, capsys):
    assert main(["plugins", "new", "--kind", "grid", "--", name]) == 2
    assert capsys.readouterr().err.startswith(("error: ", "Usage: "))
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "0", "testing"])
def test_names_are_kept(name, here, install_folder, capsys):
    folder = make(name, "grid", capsys)
    assert name in folder.name
    install_folder(here / folder)
    assert main(["components", "show", f"grid/{name}:power"]) == 0


def test_a_folder_is_never_written_into(here, capsys):
    (here / "dlmkit-fresh").mkdir()
    assert main(["plugins", "new", "fresh", "--kind", "grid"]) == 2
    assert capsys.readouterr().err == (
        "error: dlmkit-fresh exists already; choose another name or remove it\n"
    )
    assert list((here / "dlmkit-fresh").iterdir()) == []


def test_an_unknown_kind_is_guessed_at(here, capsys):
    assert main(["plugins", "new", "fresh", "--kind", "samplr"]) == 2
    assert capsys.readouterr().err == (
        "error: there is no kind of component 'samplr', did you mean 'sampler'?\n"
    )
