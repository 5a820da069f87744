"""``dlmkit recipe``, from the outside."""

import json
from pathlib import Path

import pytest

from dlmkit.cli.app import main
from dlmkit.recipe.shelf import folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def output(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_recipes_are_listed_with_a_summary(capsys):
    found = {r["name"]: r for r in json.loads(output(capsys, "recipe", "ls", "--json"))}
    assert found["ddlm_grammar"]["qualified"] == "dlmkit:ddlm_grammar"
    assert found["ddlm_grammar"]["summary"] in output(capsys, "recipe", "ls")
    own = {name for name, recipe in found.items() if recipe["owner"] == "dlmkit"}
    assert own == {path.stem for path in folder().glob("*.yaml")}
    assert found["plaid_grammar"]["qualified"] == "plaid:plaid_grammar"


def test_what_is_shown_loads_again_identically(capsys):
    shown = output(capsys, "recipe", "show", "ddlm_grammar", "--set", "seed=9")
    Path("saved.yaml").write_text(shown)
    assert output(capsys, "recipe", "show", "saved.yaml") == shown
    assert "seed: 9\n" in shown
    assert json.loads(output(capsys, "recipe", "show", "saved.yaml", "--json"))["seed"] == 9


def test_check_tells_problems_on_stderr_and_as_json(capsys):
    assert output(capsys, "recipe", "check", "ddlm_grammar") == "ddlm_grammar: valid\n"
    Path("bad.yaml").write_text("extends: ddlm_grammar\nseed: x\n")
    assert main(["recipe", "check", "bad.yaml"]) == 3
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "bad.yaml:2:7: seed: expected an integer, got 'x'\n")
    assert main(["recipe", "check", "bad.yaml", "--json", "--set", "train.ema=2"]) == 3
    assert json.loads(capsys.readouterr().out) == {
        "recipe": "bad.yaml",
        "valid": False,
        "problems": [
            {
                "file": "bad.yaml",
                "line": 2,
                "column": 7,
                "path": "seed",
                "what": "expected an integer, got 'x'",
            },
            {
                "file": "--set train.ema",
                "line": None,
                "column": None,
                "path": "train.ema",
                "what": "expected less than 1, got 2",
            },
        ],
    }


def test_check_as_json_of_what_is_not_there(capsys):
    assert main(["recipe", "check", "nowhere", "--json"]) == 3
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["what"].startswith("there is no recipe named 'nowhere'")


def test_diff_prints_changed_key_paths(capsys):
    Path("child.yaml").write_text("extends: ddlm_grammar\nseed: 5\nexit:\n  use: entropy\n"
                                  "  with: {threshold: 0.1}\n")  # fmt: skip
    lines = output(capsys, "recipe", "diff", "ddlm_grammar", "child.yaml").splitlines()
    assert lines == [
        "  seed: 0 -> 5",
        "  exit: null -> {use: samplers:entropy, with: {threshold: 0.1}}",
    ]
    found = json.loads(output(capsys, "recipe", "diff", "ddlm_grammar", "child.yaml", "--json"))
    assert found[0] == {"path": "seed", "before": 0, "after": 5}
    assert output(capsys, "recipe", "diff", "child.yaml", "child.yaml") == ""


def test_cp_copies_the_file_and_overwrites_nothing(capsys):
    assert output(capsys, "recipe", "cp", "ddlm_grammar", "mine.yaml") == "mine.yaml\n"
    assert Path("mine.yaml").read_bytes() == (folder() / "ddlm_grammar.yaml").read_bytes()
    assert main(["recipe", "cp", "ddlm_grammar", "mine.yaml"]) == 2
    refused = "error: mine.yaml exists already: give another name, or remove it\n"
    assert capsys.readouterr().err == refused
    assert main(["recipe", "cp", "ddlm_grammar", "nowhere/mine.yaml"]) == 2
    assert output(capsys, "recipe", "cp", "ddlm_grammar", ".") == "ddlm_grammar.yaml\n"


def test_cp_of_a_recipe_that_extends_a_file_writes_it_resolved(capsys):
    Path("parent.yaml").write_bytes((folder() / "ddlm_grammar.yaml").read_bytes())
    Path("child.yaml").write_text("extends: parent.yaml\nseed: 5\n")
    Path("deep").mkdir()
    assert main(["recipe", "cp", "./child.yaml", "deep/copy.yaml"]) == 0
    assert "writing it resolved" in capsys.readouterr().err
    assert output(capsys, "recipe", "diff", "child.yaml", "deep/copy.yaml") == ""


def test_the_schema_is_json(capsys):
    schema = json.loads(output(capsys, "recipe", "schema"))
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"use"} <= set(schema["$defs"]["grid"]["oneOf"][0]["properties"])
