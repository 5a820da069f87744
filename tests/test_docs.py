"""Documentation runs as written: its Python, its recipes, and its commands, cut short.

Blocks marked ``bash`` are run. Those marked ``sh`` need minutes, several devices or a hub.
"""

import re
import shlex
from pathlib import Path

import pytest

from dlmkit.cli.app import main
from dlmkit.recipe.load import resolve_text

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [ROOT / "README.md", *ROOT.glob("plugins/*/README.md")]
)  # test_tutorial.py has the rest
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CUT = ["train.steps=2", "train.batch_size=4", "train.validation_rows=4", "sample.measured=2"]
CUT += ["space.with.counts.tokens=20000"]
SHORT = {
    "train": [word for key in (*CUT, "sample.steps=4") for word in ("--set", key)],
    "sample": ["--steps", "4"],
    "bench": ["-n", "16", "--rounds", "1"],
}


def blocks(language: str, pages: list[Path] = PAGES) -> list:
    """Every block of ``language``, named by its page and number."""
    found = []
    for page in pages:
        bodies = [body for kind, body in BLOCK.findall(page.read_text()) if kind == language]
        name = page.relative_to(ROOT).with_suffix("")
        found += [pytest.param(body, id=f"{name}-{i}") for i, body in enumerate(bodies)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("body", blocks("python"))
def test_python_runs(body, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = re.sub(r'"steps": \d+', '"steps": 3', body)
    exec(compile(short, "documentation", "exec"), {"__name__": "documentation"})


@pytest.mark.parametrize("body", blocks("yaml"))
def test_pieces_of_recipes_are_valid(body):
    whole = body if body.startswith("extends:") else f"extends: ddlm_grammar\n{body}"
    resolve_text(whole, "documentation")


@pytest.mark.slow
def test_readme_commands_run_in_their_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    page = [ROOT / "README.md"]
    lines = [line for block in blocks("bash", page) for line in block.values[0].splitlines()]
    commands = [part for line in lines for part in line.split("&&") if "dlmkit " in part]
    assert len(commands) > 10
    for command in commands:
        words = shlex.split(command, comments=True)
        if words[0] != "dlmkit":
            continue
        assert main([*words[1:], *SHORT.get(words[1], [])]) == 0, (command, capsys.readouterr().err)
