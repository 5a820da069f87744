"""Commands: dlmkit's own, those that plugins bring, and what looking at them costs."""

import inspect
import json
import subprocess
import sys
from typing import get_type_hints

import pytest
import typer

from dlmkit.cli.app import main
from dlmkit.cli.commands import OWN, top
from dlmkit.registry.lookup import Registry, import_target

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


def test_a_command_at_the_top_is_for_dlmkits_own_plugins(install, capsys):
    install("acme", PLUGIN.replace('f"{__name__}:greet")', 'f"{__name__}:greet", top=True)'))
    assert main(["greet", "world"]) == 2
    assert main(["acme", "greet", "world"]) == 2
    assert main(["plugins", "list"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "command 'greet': top=True is for dlmkit's own plugins" in said
    assert "the command is run as 'dlmkit PLUGIN greet'" in said


def test_the_plugins_of_dlmkit_take_no_command_from_one_another():
    asked = [c.name for p in Registry.load(False).loaded for c in p.commands if c.top]
    assert len({*asked, *OWN}) == len(asked) + len(OWN) == len(top())
    assert {"glue", "push", "pull", "view"} <= set(asked)


def test_what_a_command_takes_is_written_in_capitals():
    plugins = [command for p in Registry.load(False).loaded for command in p.commands]
    lower = []
    for command in [*OWN.values(), *plugins]:
        run = import_target(command.target, command.name)
        single = not isinstance(run, typer.Typer)
        for callback in [run] if single else [c.callback for c in run.registered_commands]:
            for name, kind in get_type_hints(callback, include_extras=True).items():
                for said in getattr(kind, "__metadata__", ()):
                    if isinstance(said, typer.models.ArgumentInfo) and said.metavar is None:
                        lower.append(f"{command.name}: {name}")
    assert not lower


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


@pytest.mark.parametrize("name", top())
def test_the_list_says_of_a_command_what_its_own_help_says_first(name):
    found = import_target(top()[name].target, name)
    words = found.info.help if isinstance(found, typer.Typer) else inspect.getdoc(found)
    assert " ".join(words.partition("\n\n")[0].split()) == top()[name].summary


def test_a_misspelt_command_gets_a_guess(capsys):
    assert main(["recip"]) == 2
    assert "Did you mean 'recipe'" in capsys.readouterr().err


LOOK = """
import json, sys
from dlmkit.cli.app import main
from dlmkit.plugin import Config

assert main(sys.argv[1:]) == 0

def below(config):
    return [config, *(deeper for child in config.__subclasses__() for deeper in below(child))]

built = sorted(c.__name__ for c in below(Config) if c.__pydantic_complete__)
print(json.dumps([sorted(sys.modules), built, len(below(Config))]))
"""


def imported_and_built(*arguments: str) -> tuple[set[str], list[str], int]:
    """What a command imports, the options it has pydantic build a validator of, and all there are.

    These two are what a quick command spends its time on.
    """
    command = [sys.executable, "-c", LOOK, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    modules, built, there = json.loads(done.stdout.splitlines()[-1])
    return set(modules), built, there


def test_help_imports_no_command_and_builds_no_options():
    modules, built, there = imported_and_built("--help")
    ours = {name for name in modules if name.startswith("dlmkit.cli.")}
    assert ours == {"dlmkit.cli.app", "dlmkit.cli.commands", "dlmkit.cli.output"}
    assert not modules & {"rich", "ruamel.yaml", "numpy", "dlmkit.recipe", "dlmkit.training"}
    assert len(built) <= 1  # a default that is an instance: the text corpus's Tokens()
    assert there > 50


def test_checking_a_recipe_builds_the_options_that_it_names_alone():
    modules, built, there = imported_and_built("recipe", "check", "ddlm_small")
    ours = {name for name in modules if name.startswith("dlmkit.cli.")}
    assert ours == {
        f"dlmkit.cli.{name}" for name in ("app", "commands", "options", "output", "recipe")
    }
    assert not modules & {"rich", "numpy", "dlmkit.training"}
    assert len(built) < 25 < there
