"""`dlmkit bench list` and `run`: cases of an installed package, and those that go wrong."""

import json

import pytest

from dlmkit.bench import document
from dlmkit.bench.compare import compare
from dlmkit.cli.app import main

SOURCE = """
from dlmkit import hookimpl
from dlmkit.plugin import Benchmark

ORDER = []

def quick():
    print("setting up")
    return lambda: ORDER.append("quick")

def slow():
    import time
    return lambda: (ORDER.append("slow"), time.sleep(0.01))

def placed(device):
    print(f"set up on {device}")
    return lambda: None

def broken():
    def fail():
        raise ValueError("no such table")
    return fail

def idle():
    return 3

@hookimpl
def register_benchmarks():
    return [Benchmark(name, f"the {name} one", f"dlmkit_acme:{name}") for name in NAMES]
"""


@pytest.fixture
def bring(install):
    """Installs a package whose plugin brings these cases."""

    def call(*names, distribution="dlmkit-acme", plugin="acme"):
        install(distribution, f"NAMES = {names!r}\n{SOURCE}", plugin=plugin, version="1.2")

    return call


def test_they_are_listed_with_who_brought_them(bring, capsys):
    bring("quick", "slow")
    assert main(["bench", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"name": f"acme:{name}", "summary": f"the {name} one", "package": "dlmkit-acme 1.2"}
        for name in ("quick", "slow")
    ]
    assert main(["bench", "list"]) == 0
    assert "acme:slow   dlmkit-acme 1.2  the slow one" in capsys.readouterr().out


def test_a_case_that_takes_a_device_gets_the_one_that_is_measured(accelerator, bring, capsys):
    bring("placed", "quick")
    assert main(["bench", "run", "--rounds", "1"]) == 0
    shown = capsys.readouterr()
    assert f"set up on {accelerator}" in shown.err
    assert f"measured on {accelerator} (computes on the CPU)" in shown.out


def test_they_run_side_by_side_and_can_be_compared(bring, capsys, tmp_path):
    bring("quick", "slow")
    for name in ("a", "b"):
        words = ["--rounds", "3", "--json", str(tmp_path / name)]
        assert main(["bench", "run", *words]) == 0
    shown = capsys.readouterr()
    assert "acme:slow   dlmkit-acme 1.2" in shown.out
    assert "setting up" in shown.err
    assert "setting up" not in shown.out
    from dlmkit_acme import ORDER

    assert ORDER == ["quick", "slow"] * 2 * (1 + 3)  # a warm-up and three rounds, in turn
    before, after = (document.read(tmp_path / name) for name in ("a", "b"))
    entries = {entry["name"]: entry for entry in before["benchmarks"]}
    assert entries["acme:slow"]["stats"]["min"] >= 0.01 > entries["acme:quick"]["stats"]["min"]
    assert entries["acme:slow"]["stats"]["rounds"] == 3
    assert entries["acme:slow"]["extra_info"]["package"] == "dlmkit-acme 1.2"
    assert before["dlmkit"]["versions"]["dlmkit-acme"] == "1.2"
    assert [change.more for change in compare(before, after).changes] == [None, None]
    assert main(["bench", "compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "acme:slow" in capsys.readouterr().out


def test_one_is_run_by_its_short_name(bring, capsys):
    bring("quick", "slow", "broken")
    assert main(["bench", "run", "quick", "acme:quick", "--rounds", "1"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "CASE",
        "acme:quick",
        "measured",
    ]


@pytest.mark.parametrize(
    ("names", "code", "message"),
    [
        (["broken"], 4, "acme:broken (dlmkit-acme 1.2) failed: ValueError: no such table"),
        (["idle"], 4, "must set up and return what is timed, a function without arguments; it re"),
        (["missing"], 4, "cannot import dlmkit_acme:missing"),
        (["quik"], 3, "there is no bench case 'quik'; shipped bench cases are "),
        (["acmee:quick"], 4, "no plugin named 'acmee' is installed"),
        (["--json", "/nowhere/x.json"], 2, "there is no folder /nowhere"),
    ],
)
def test_what_goes_wrong_is_one_line(bring, capsys, names, code, message):
    bring("quick", "broken", "idle", "missing")
    assert main(["bench", "run", *names]) == code
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_a_name_of_two_plugins_and_one_that_is_blocked(bring, capsys, monkeypatch):
    bring("quick")
    bring("quick", distribution="other", plugin="other")
    assert main(["bench", "run", "quick"]) == 3
    assert "write 'acme:quick' or 'other:quick'" in capsys.readouterr().err
    monkeypatch.setenv("DLMKIT_PLUGINS", "other")
    assert main(["bench", "run", "acme:quick"]) == 4
    assert "plugin 'acme' (dlmkit-acme 1.2) is blocked" in capsys.readouterr().err


def test_without_any_it_says_so(capsys):
    assert main(["bench", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["bench", "run"]) == 2
    assert "no installed plugin brings a bench case" in capsys.readouterr().err
