"""Every command: this package's own, and those of plugins.

A command's code is imported when it is run or its own help is shown; the list of all of them
imports none, so it is as quick with thirty commands as with three.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from dlmkit.plugin import PROJECT, Command
from dlmkit.shown import visible

if TYPE_CHECKING:
    from dlmkit.registry.loading import Loaded
    from dlmkit.registry.lookup import PluginInfo

OWN = {
    name: Command(name, summary, f"dlmkit.cli.{target}")
    for name, summary, target in (
        ("train", "Train a recipe, alone or under torchrun.", "train:train"),
        ("sample", "Draw text from a trained model, alone or under torchrun.", "sample:sample"),
        (
            "trace",
            "Record full runs: tokens and statistics of every step, in one safetensors file.",
            "trace:trace",
        ),
        (
            "import",
            "Write a model that others released as a folder of dlmkit's own.",
            "importing:import_model",
        ),
        ("doctor", "Show what works on this machine.", "doctor:doctor"),
        ("models", "Models that plugins ship, and released ones that they open.", "models:models"),
        ("exit", "Calibrate exit rules on recorded runs.", "exit:exit_app"),
        ("bench", "Measure sampling, and compare measurements.", "bench:bench"),
        (
            "eval",
            "Measure a model or texts: one record that pins what moves the numbers.",
            "eval:evaluation",
        ),
        (
            "perplexity",
            "Say how well MODEL, masked or continuous, predicts texts that it has not seen.",
            "perplexity:perplexity",
        ),
        ("recipe", "Recipes: what to train, and how.", "recipe:recipe"),
        ("components", "The parts that recipes are made of.", "components:components"),
        ("plugins", "The plugins that are installed.", "plugins:plugins"),
    )
}
"""The commands of this package by name; ``target`` is a function, or a Typer of several."""


@cache
def top() -> Mapping[str, Command]:
    """The commands that stand at the top: :data:`OWN`, and those that dlmkit's plugins ask for."""
    from dlmkit.registry.lookup import Registry

    loaded = Registry.load(third_party=False).loaded
    asked = (command for plugin in loaded for command in plugin.commands if command.top)
    return {**OWN, **{command.name: command for command in asked}}


def _plugins() -> Mapping[str, Loaded]:
    """The plugins that loaded and bring commands under their own name, by that name."""
    from dlmkit.registry.lookup import Registry

    usable = (plugin for plugin in Registry.load().loaded if plugin.state == "ok")
    return {plugin.name: plugin for plugin in usable if _nested(plugin)}


def _nested(plugin: Loaded) -> list[Command]:
    return [command for command in plugin.commands if not command.top]


def unreachable(plugins: Iterable[PluginInfo]) -> Iterator[str]:
    """Why the commands of some of ``plugins`` cannot be reached, a sentence each."""
    taken = top()
    for plugin in plugins:
        commands = any(name.startswith("command/") for name in plugin.provides)
        if plugin.name in taken and commands and plugin.distribution != PROJECT:
            yield (
                f"{plugin.name!r} is a command of dlmkit itself, so the commands of the plugin "
                f"{plugin.name!r} cannot be reached; it must take another name"
            )


def _mounted(command: Command, who: str, words: str | None = None) -> Any:
    """``command`` as the program runs it. Raises PluginError if its target cannot be imported."""
    from dlmkit.registry.lookup import import_target

    target = import_target(command.target, f"command {who}")
    parent = typer.Typer(add_completion=False, rich_markup_mode=None)
    if isinstance(target, typer.Typer):
        parent.add_typer(target, name=command.name)
    else:
        parent.command(command.name, help=words)(target)
    return typer.main.get_group(parent).commands[command.name]


class _Top(Mapping[str, Any]):
    """:func:`top` as commands that run, each imported when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        return _mounted(OWN.get(name) or top()[name], name)

    def __iter__(self) -> Iterator[str]:
        return iter(top())

    def __len__(self) -> int:
        return len(top())


class Program(TyperGroup):
    """The commands at the top, and one group for every plugin that brings others.

    Those at the top are looked up first, so that no other plugin can take the place of one;
    others are loaded only for a word that is none of them, and for the help.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Top()  # type: ignore[assignment]  # typer only reads it

    def list_commands(self, ctx: Any) -> list[str]:
        return [*(there := top()), *(name for name in _plugins() if name not in there)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in OWN or cmd_name in top():
            return self.commands[cmd_name]
        plugin = _plugins().get(cmd_name)
        return None if plugin is None else PluginGroup(plugin)

    def make_context(self, *words: Any, **settings: Any) -> Any:
        with _visible_errors():
            return super().make_context(*words, **settings)

    def invoke(self, ctx: Any) -> Any:
        with _visible_errors():
            return super().invoke(ctx)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        there = top()
        rows = [(name, command.summary) for name, command in there.items()]
        rows += [(n, _summary(plugin)) for n, plugin in _plugins().items() if n not in there]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class PluginGroup(TyperGroup):
    """The commands of one plugin."""

    def __init__(self, plugin: Loaded) -> None:
        self.plugin = plugin
        words = _summary(plugin)
        super().__init__(name=plugin.name, help=words, no_args_is_help=True, rich_markup_mode=None)

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(command.name for command in _nested(self.plugin))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        for command in _nested(self.plugin):
            if command.name == cmd_name:
                words = visible(command.summary)
                return _mounted(command, f"{self.plugin.name} {cmd_name}", words)
        return None


def _summary(plugin: Loaded) -> str:
    words = f"From {plugin.package}: {'; '.join(command.summary for command in _nested(plugin))}"
    return visible(words)


@contextmanager
def _visible_errors() -> Iterator[None]:
    """Usage errors, which typer prints itself, repeat the words that they are about."""
    try:
        yield
    except Exception as error:
        message = getattr(error, "message", None)
        if hasattr(error, "format_message") and isinstance(message, str):
            error.message = visible(message)  # type: ignore[attr-defined]
        raise
