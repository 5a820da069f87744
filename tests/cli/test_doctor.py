"""``dlmkit doctor`` calls what it reports."""

import json

import pytest

from dlmkit.cli import checks
from dlmkit.cli.app import main


@pytest.mark.slow
def test_doctor_reports_everything_as_json(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["versions"]["torch"]
    assert report["devices"][0]["device"] == "cpu"
    assert report["devices"][0]["works"]
    assert report["threads"]["count"] >= 1
    assert report["threads"]["waiting"].startswith("OMP_WAIT_POLICY")
    assert "thread" in report["threads"]["in_force"]
    works = {row["backend"]: row["works"] for row in report["attention"] if row["device"] == "cpu"}
    assert works["sdpa"]
    assert set(works) == {"sdpa", "xformers", "flex"}
    assert report["compile"][0]["device"] == "cpu"
    assert "cdcd" in [plugin["name"] for plugin in report["plugins"]]
    assert [folder["what"] for folder in report["folders"]] == ["built corpora", "hub"]


def test_attention_that_cannot_run_says_why():
    rows = {row["backend"]: row for row in checks.attention("cpu")}
    assert rows["sdpa"]["works"]
    assert rows["sdpa"]["detail"].startswith("torch ")
    assert not rows["xformers"]["works"]
    assert "xformers does not work on cpu" in rows["xformers"]["detail"]


def test_folders_are_measured(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"12345")
    assert checks.folder("x", tmp_path) == {
        "what": "x",
        "path": str(tmp_path),
        "exists": True,
        "writable": True,
        "bytes": 5,
    }
    absent = checks.folder("x", tmp_path / "c" / "d")
    assert (absent["exists"], absent["writable"], absent["bytes"]) == (False, True, 0)


def test_what_is_missing_is_told_with_what_it_is_for(monkeypatch):
    monkeypatch.setitem(checks.OPTIONAL, "surely-not-there", ("dreams", "sleep"))
    assert checks.missing()[-1] == {
        "package": "surely-not-there",
        "for": "dreams",
        "do": "pip install 'dlmkit[sleep]'",
    }
