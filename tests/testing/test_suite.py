"""How checks are run and reported, and the checks of plugins themselves."""

import json

import pytest

from dlmkit.cli.app import main
from dlmkit.registry.lookup import Registry
from dlmkit.testing import check_plugin
from dlmkit.testing.outcome import CheckFailed
from dlmkit.testing.suite import cases

HEAD = """
from dlmkit import Component, hookimpl
from dlmkit.plugin import Benchmark, Command, Recipe, ShippedModel
from pathlib import Path
import itertools
from dlmkit.core.options import Nothing as Options

def masking(name="mine", **declared):
    target = "dlmkit_cdcd.masking:RandomMasking"
    return Component("masking", name, "a masking", Options, target, **declared)
"""

GOOD = """
@hookimpl
def register_components(): return [masking()]
"""

PLUGINS = {
    "imports-no-torch": "import torch" + HEAD + GOOD,
    "hooks-repeat-themselves": HEAD
    + """
count = itertools.count()

@hookimpl
def register_components(): return [masking(f"mine-{next(count)}")]
""",
    "offers-something": HEAD + "@hookimpl\ndef register_recipes(): return []",
    "recipes-resolve": HEAD
    + GOOD
    + """
@hookimpl
def register_recipes(): return [Recipe("bad", Path(__file__))]
""",
    "models-are-complete": HEAD
    + GOOD
    + """
@hookimpl
def register_models(): return [ShippedModel("bad", "no model", Path(__file__).parent)]
""",
    "targets-import": HEAD
    + GOOD
    + """
@hookimpl
def register_commands(): return [Command("bad", "says nothing", "nowhere:run")]
""",
}


@pytest.mark.parametrize("check", PLUGINS)
def test_a_bad_plugin_is_found_by_its_check(install, check):
    install("acme", PLUGINS[check])
    failed = {o.check for o in check_plugin("acme") if o.outcome == "failed"}
    assert failed == {check}


@pytest.mark.parametrize("source", ["raise SystemExit", None])
def test_a_plugin_that_does_not_load_is_one_failure(install, source):
    if source is not None:
        install("acme", source)
    (outcome,) = check_plugin("acme")
    assert (outcome.component, outcome.check, outcome.outcome) == ("plugin", "loads", "failed")


def test_outcomes_as_json(install, capsys):
    reason = "it is the first of its kind"
    install("acme", HEAD + GOOD.replace("masking()", "masking(), masking('late')"))
    assert main(["plugins", "check", "acme", "--json"]) == 0
    outcomes = json.loads(capsys.readouterr().out)
    assert all(set(o) == {"component", "check", "outcome", "message"} for o in outcomes)
    assert {o["component"] for o in outcomes} == {"plugin", "masking/mine", "masking/late"}
    assert {o["outcome"] for o in outcomes} == {"passed", "skipped"}
    assert reason not in str(outcomes)


def test_expected_failures_are_strict(install, capsys):
    declared = "masking(expected_failures={'deterministic': 'it cannot be'})"
    install("acme", HEAD + GOOD.replace("masking()", declared))
    assert main(["plugins", "check", "acme"]) == 1
    assert (
        "  deterministic failed: it passes, but is declared an expected failure: it cannot be\n"
        in capsys.readouterr().out
    )


WILD = """
import torch
from dlmkit_cdcd.masking import RandomMasking as Half

class Wild(Half):
    def draw(self, attend, noise):
        torch.rand(1)
        return super().draw(attend, noise)
"""


def test_an_expected_failure_that_fails_is_no_failure(install, site, capsys):
    (site / "wild.py").write_text(WILD)
    declared = "masking(expected_failures={'no-global-randomness': 'as in the paper'})"
    source = (HEAD + GOOD).replace("dlmkit_cdcd.masking:RandomMasking", "wild:Wild")
    install("acme", source.replace("masking()", declared))
    assert main(["plugins", "check", "acme"]) == 0
    assert "no-global-randomness expected: as in the paper (" in capsys.readouterr().out
    (case,) = (c for c in cases("acme") if c.check.name == "no-global-randomness")
    with pytest.raises(pytest.xfail.Exception, match="as in the paper"):
        case.for_pytest()


def test_a_failed_check_is_a_sentence_without_a_traceback(install, site, capsys):
    (site / "wild.py").write_text(WILD)
    install("acme", (HEAD + GOOD).replace("dlmkit_cdcd.masking:RandomMasking", "wild:Wild"))
    assert main(["plugins", "check", "acme"]) == 1
    (line,) = (text for text in capsys.readouterr().out.splitlines() if "failed: " in text)
    assert line == (
        "  no-global-randomness failed: Randomness is an argument: global generators are neither "
        "read nor moved: it drew from a global generator; draw from the noise it is given"
    )
    (case,) = (c for c in cases("acme") if c.check.name == "no-global-randomness")
    with pytest.raises(CheckFailed, match="drew from a global generator"):
        case.for_pytest()


def test_an_unknown_plugin_is_a_known_error(capsys):
    assert main(["plugins", "check", "nobody"]) == 4
    assert "no plugin named 'nobody' is installed" in capsys.readouterr().err


def test_checks_have_no_network(install):
    source = """
import socket
from dlmkit_cdcd.masking import RandomMasking as Half

class Wild(Half):
    def draw(self, attend, noise):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
"""
    site = install(
        "acme", (HEAD + GOOD).replace("dlmkit_cdcd.masking:RandomMasking", "netting:Wild")
    )
    (site / "netting.py").write_text(source)
    failed = [o.message for o in check_plugin("acme") if o.check == "gives-a-mask"]
    assert "checks have no network" in failed[0]


def test_nothing_is_left_behind(install):
    import torch

    install("acme", HEAD + GOOD)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    check_plugin("acme", Registry.load())
    assert torch.equal(torch.get_rng_state(), before)
