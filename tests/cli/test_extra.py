"""Commands that plugins bring."""

import pytest

from dlmkit.cli.app import main

PLUGIN = """
from typing import Annotated
import typer
from dlmkit import hookimpl
from dlmkit.plugin import Command

def greet(name: str, loud: Annotated[bool, typer.Option("--loud", help="In capitals.")] = False):
    print(f"hello {name}".upper() if loud else f"hello {name}")

@hookimpl
def register_commands():
    return [
        Command("greet", "says hello", f"{__name__}:greet"),
        Command("broken", "cannot be imported", "nowhere:broken"),
    ]
"""


def test_a_command_is_mounted_under_its_plugin(install, capsys):
    install("acme", PLUGIN)
    assert main(["acme", "greet", "world", "--loud"]) == 0
    assert capsys.readouterr().out == "HELLO WORLD\n"
    assert main(["acme", "greet"]) == 2
    assert main(["acme", "nonsense"]) == 2
    assert main(["--help"]) == 0
    assert "From acme 1.0: says hello; cannot be imported" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_command_that_cannot_be_imported_stops_only_itself(install, capsys):
    install("acme", PLUGIN)
    assert main(["acme", "broken"]) == 4
    assert capsys.readouterr().err == (
        "error: command acme broken: cannot import nowhere:broken: "
        "ModuleNotFoundError: No module named 'nowhere'\n"
    )
    assert main(["acme", "greet", "you"]) == 0


def test_a_plugin_takes_no_command_of_dlmkits_own(install, capsys):
    install("other", PLUGIN, plugin="recipe")
    assert main(["recipe", "check", "ddlm_grammar"]) == 0
    assert capsys.readouterr().out == "ddlm_grammar: valid\n"
    assert main(["plugins", "check", "recipe"]) == 1
    assert "'recipe' is a command of dlmkit itself" in capsys.readouterr().out


@pytest.mark.parametrize("isolate", ["option", "variable"])
def test_left_out_with_their_plugins(install, capsys, monkeypatch, isolate):
    install("acme", PLUGIN)
    if isolate == "variable":
        monkeypatch.setenv("DLMKIT_PLUGINS", "others")
    before = ["--no-plugins"] * (isolate == "option")
    assert main([*before, "acme", "greet", "world"]) == 2
    assert main([*before, "--help"]) == 0
    assert "acme" not in capsys.readouterr().out


def test_a_broken_plugin_stops_no_command(install, capsys):
    install("bad", "raise SystemExit(3)")
    install("acme", PLUGIN)
    assert main(["acme", "greet", "world"]) == 0
    assert main(["bad", "anything"]) == 2
