"""The program as a whole: exit codes, streams, and errors as one message."""

import json
import os
import subprocess
import sys

import pytest

from dlmkit.cli.app import main

PARTS = """
from dlmkit import Component, Config, hookimpl

class Options(Config):
    "Nothing to choose."

@hookimpl
def register_components():
    return [Component("masking", "mine", "a masking", Options, "nowhere:Mine")]
"""


def run(*arguments: str, **keywords) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dlmkit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **keywords)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["--help"], 0),
        ([], 2),
        (["nonsense"], 2),
        (["--nonsense"], 2),
        (["recipe"], 2),
        (["recipe", "show"], 2),
        (["recipe", "show", "ddlm_grammar", "--set", "seed"], 2),
        (["recipe", "show", "nowhere"], 3),
        (["recipe", "show", "ddlm_grammar", "--set", "grid.use=nobodys"], 3),
        (["components", "show", "grid/nobodys"], 3),
        (["recipe", "show", "absent:recipe"], 4),
        (["components", "show", "grid/absent:even"], 4),
        (["recipe", "check", "ddlm_grammar"], 0),
        (["plugins", "list"], 0),
    ],
)
def test_exit_codes(arguments, code, capsys):
    assert main(arguments) == code


def test_the_module_is_the_program():
    done = run("recipe", "show", "nowhere")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: there is no recipe named 'nowhere'")
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(capsys):
    assert main(["--debug", "recipe", "show", "nowhere"]) == 3
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (
            ZeroDivisionError("division\nby zero"),
            1,
            "unexpected error: ZeroDivisionError: division by zero; "
            "for the traceback: dlmkit --debug ...\n",
        ),
    ],
)
def test_errors_that_are_nobodys_fault(monkeypatch, capsys, error, code, said):
    def fail(*_):
        raise error

    monkeypatch.setattr("dlmkit.registry.lookup.Registry.load", fail)
    assert main(["components", "list"]) == code
    assert capsys.readouterr() == ("", said)


def test_a_reader_that_stops_reading_is_no_error():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "dlmkit", "components", "list"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_plugins_are_listed_whatever_failed(install, capsys):
    install("acme", PARTS, version="2.3")
    install("bad", "raise SystemExit('no')")
    assert main(["plugins", "list", "--json"]) == 0
    found = {plugin["name"]: plugin for plugin in json.loads(capsys.readouterr().out)}
    assert found["acme"] == {
        "name": "acme",
        "version": "2.3",
        "distribution": "acme",
        "state": "ok",
        "reason": "",
        "provides": ["masking/mine"],
        "sha256": "",
    }
    assert (found["bad"]["state"], found["bad"]["reason"]) == ("failed", "SystemExit: no")
    assert main(["plugins", "list"]) == 0
    assert "bad failed bad 1.0 SystemExit: no" in " ".join(capsys.readouterr().out.split())


def test_no_plugins_blocks_third_parties_for_this_command_only(install, capsys):
    install("acme", PARTS)
    assert main(["--no-plugins", "components", "show", "masking/acme:mine"]) == 4
    assert "plugin 'acme' (acme 1.0) is blocked: " in capsys.readouterr().err
    assert main(["components", "show", "masking/acme:mine"]) == 0


def test_a_choice_of_plugins_that_are_not_there_is_noted(monkeypatch, capsys):
    monkeypatch.setenv("DLMKIT_PLUGINS", "ghost")
    assert main(["plugins", "list"]) == 0
    note = "note: DLMKIT_PLUGINS lists 'ghost', which no installed package provides\n"
    assert capsys.readouterr().err == note


def test_components_are_shown_with_options_defaults_description_and_owner(install, capsys):
    install("acme", PARTS, version="2.3")
    assert main(["components", "show", "masking/mine"]) == 0
    assert capsys.readouterr().out == (
        "masking acme:mine: a masking\n  from acme 2.3\n  Nothing to choose.\n  no options\n"
    )
    assert main(["components", "show", "schedule/cdcd:time-warp", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["plugin"], shown["distribution"]) == ("cdcd", "dlmkit")
    (option,) = [option for option in shown["options"] if option["name"] == "t_max"]
    assert option["default"] == 300.0
    assert (option["type"], option["required"]) == ("number > 0", False)


def test_components_of_a_kind(capsys):
    assert main(["components", "list", "schedule", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {component["kind"] for component in found} == {"schedule"}
    assert "cdcd:time-warp" in [component["qualified"] for component in found]
    assert main(["components", "list", "schedul"]) == 3
    message = "error: there is no kind of component 'schedul', did you mean 'schedule'?\n"
    assert capsys.readouterr().err == message
