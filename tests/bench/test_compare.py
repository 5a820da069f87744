"""Two documents side by side."""

import copy
import json
from pathlib import Path

import pytest

from dlmkit.bench import document
from dlmkit.bench.compare import compare
from dlmkit.cli.app import main
from dlmkit.errors import UsageError


def made(seconds: float = 1.0, evaluations: float = 32.0, nll: float = 2.0, **protocol: object):
    extra = {"evaluations_mean": evaluations, "quality": {"nll": nll}}
    entries = [document.entry("g", name, {}, [seconds, seconds], extra) for name in ("a", "b")]
    return document.document({}, {"model": "x", "seed": 0, **protocol}, entries, {})


def test_changes_are_relative():
    found = compare(made(), made(seconds=1.1, evaluations=16.0, nll=2.2))
    (change, _) = found.changes
    assert change.slower == pytest.approx(0.1)
    assert change.more == pytest.approx(-0.5)
    assert change.worse_nll == pytest.approx(0.1)
    assert found.failures(0.2) == []
    assert found.failures(0.05) == [
        "a: time +10.0 %",
        "a: nll +10.0 %",
        "b: time +10.0 %",
        "b: nll +10.0 %",
    ]


def test_other_protocols_are_refused_by_name():
    with pytest.raises(UsageError, match=r"seed: 0 -> 1\n  threads: nothing -> 2"):
        compare(made(), made(seed=1, threads=2))


def test_a_case_that_has_gone_fails_and_a_new_one_does_not():
    after = copy.deepcopy(made())
    after["benchmarks"][0]["name"] = "c"
    found = compare(made(), after)
    assert (found.only_before, found.only_after) == (("a",), ("c",))
    assert found.failures(1.0) == ["a: no longer measured"]
    after["benchmarks"] = after["benchmarks"][:1]
    with pytest.raises(UsageError, match="no case in common"):
        compare(made(), after)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("{}", "says no protocol"),
        ("[]", "says no protocol"),
        ('{"dlmkit": {"format": 99, "protocol": {}}}', "of format 99"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        document.read(tmp_path / "a.json")
    with pytest.raises(UsageError, match="cannot be read"):
        document.read(tmp_path / "absent.json")


def test_the_gate_has_its_own_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    document.write(made(), a)
    document.write(made(seconds=1.2), b)
    assert main(["bench", "compare", str(a), str(b)]) == 0
    assert main(["bench", "compare", str(a), str(b), "--fail-over", "25%"]) == 0
    assert "nothing is worse" in capsys.readouterr().out
    assert main(["bench", "compare", str(a), str(b), "--fail-over", "5%"]) == 8
    assert "time +20.0 %" in capsys.readouterr().err
    document.write(made(seed=3), b)
    assert main(["bench", "compare", str(a), str(b), "--fail-over", "5%"]) == 2
    assert "seed: 0 -> 3" in capsys.readouterr().err


def test_nothing_but_json_is_written(tmp_path: Path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        document.write(made(nll=float("nan")), tmp_path / "a.json")
    document.write(made(), tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text())["dlmkit"]["format"] == document.FORMAT
    with pytest.raises(UsageError, match="cannot be written"):
        document.write(made(), tmp_path / "no" / "b.json")
