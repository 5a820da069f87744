"""The script that judges samples, called as its users call it."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "judge_samples.py"
WORDS = ("old", "new", "red", "tall", "wide")
LINES = [
    f"the {a} {b} mill by the {c} {d} mill"
    for a in WORDS
    for b in WORDS
    for c in WORDS
    for d in WORDS
]
RECIPE = """
length: 16
data:
  use: text:text
  with:
    paths: [{path}]
    document: line
schedule: {{use: cdcd:variance-exploding}}
space: {{use: cdcd:normalised, with: {{dim: 8}}}}
network: {{use: cdcd:transformer, with: {{width: 16, blocks: 1, heads: 1}}}}
masking: {{use: cdcd:none}}
objective: {{use: cdcd:score-interpolation}}
train: {{steps: 1}}
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("judge_samples", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DLMKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "lines.txt").write_text("\n".join(LINES))
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(path=tmp_path / "lines.txt"))
    return path


def samples(folder: Path, content: object) -> str:
    path = folder / "samples.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_a_table_of_all_writers(
    script: ModuleType, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    texts = [{"index": i, "text": line} for i, line in enumerate(LINES[:20])]
    given = samples(tmp_path, texts)
    assert script.main([given, "--recipe", str(recipe), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["writers"]) == ["human", "model", "trigram", "bigram", "unigram"]
    nats = {name: row["nll_per_character"] for name, row in found["writers"].items()}
    assert nats["model"] < nats["bigram"] < nats["unigram"]
    assert found["texts"] == 20
    assert script.main([given, "--recipe", str(recipe)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == list(found["writers"])
    assert f"{nats['bigram']:.3f}" in lines[4]


@pytest.mark.parametrize("content", [{"text": "a"}, [1], [{"words": "a"}]])
def test_what_is_not_samples_is_refused(
    script: ModuleType,
    recipe: Path,
    tmp_path: Path,
    content: object,
    capsys: pytest.CaptureFixture[str],
):
    assert script.main([samples(tmp_path, content), "--recipe", str(recipe)]) == 2
    assert "samples.json is not a JSON list" in capsys.readouterr().err


def test_samples_need_a_recipe(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert script.main([samples(tmp_path, ["a"])]) == 2
    assert "--recipe" in capsys.readouterr().err
    assert script.main([str(tmp_path / "no-such-run")]) == 3
    assert "no-such-run" in capsys.readouterr().err
