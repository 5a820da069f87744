"""Every command: dlmkit's own, and those of plugins under the plugin's name.

A command's code is imported when it is run or its own help is shown; the list of all of them
imports none, so it is as quick with thirty commands as with three.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from dlmkit.plugin import Command
from dlmkit.shown import visible

if TYPE_CHECKING:
    from dlmkit.registry.loading import Loaded
    from dlmkit.registry.lookup import PluginInfo

OWN = {
    command.name: command
    for command in (
        Command("train", "Train a recipe, alone or under torchrun.", "dlmkit.cli.train:train"),
        Command(
            "sample",
            "Draw text from a trained model, alone or under torchrun.",
            "dlmkit.cli.sample:sample",
        ),
        Command(
            "trace",
            "Record full runs: tokens and statistics of every step, in one safetensors file.",
            "dlmkit.cli.trace:trace",
        ),
        Command(
            "view",
            "Watch one text of a trace: a line a step, or a page with a player.",
            "dlmkit.cli.view:view",
        ),
        Command(
            "analyze",
            "Look at what a model has learned and does: pictures, an HTML report, data as JSON.",
            "dlmkit.cli.analyze:analyze",
        ),
        Command(
            "export", "Write a model as a folder of the Hugging Face hub.", "dlmkit.cli.hub:export"
        ),
        Command(
            "import",
            "Write a model that others released as a folder of dlmkit's own.",
            "dlmkit.cli.importing:import_model",
        ),
        Command(
            "push",
            "Export a model and send it to the Hugging Face hub, with the token of hf auth login.",
            "dlmkit.cli.hub:push",
        ),
        Command(
            "pull",
            "Fetch a model of dlmkit from the Hugging Face hub and verify it.",
            "dlmkit.cli.hub:pull",
        ),
        Command(
            "glue",
            "Fine-tune MODEL on a task of GLUE, and score it on validation rows.",
            "dlmkit.cli.glue:glue",
        ),
        Command("doctor", "Show what works on this machine.", "dlmkit.cli.doctor:doctor"),
        Command(
            "models",
            "Models that plugins ship, and released ones that they open.",
            "dlmkit.cli.models:models",
        ),
        Command("exit", "Calibrate exit rules on recorded runs.", "dlmkit.cli.exit:exit_app"),
        Command("bench", "Measure sampling, and compare measurements.", "dlmkit.cli.bench:bench"),
        Command(
            "eval",
            "Measure a model or texts: one record that pins what moves the numbers.",
            "dlmkit.cli.eval:evaluation",
        ),
        Command("recipe", "Recipes: what to train, and how.", "dlmkit.cli.recipe:recipe"),
        Command(
            "components", "The parts that recipes are made of.", "dlmkit.cli.components:components"
        ),
        Command("plugins", "The plugins that are installed.", "dlmkit.cli.plugins:plugins"),
    )
}
"""dlmkit's own commands by name; ``target`` is a function, or a Typer of several commands."""


def _plugins() -> Mapping[str, Loaded]:
    """The plugins that loaded and bring commands, by name."""
    from dlmkit.registry.lookup import Registry

    usable = (plugin for plugin in Registry.load().loaded if plugin.state == "ok")
    return {plugin.name: plugin for plugin in usable if plugin.commands}


def unreachable(plugin: PluginInfo) -> str:
    """Why the commands of ``plugin`` cannot be reached; nothing if they can, or it has none."""
    commands = any(name.startswith("command/") for name in plugin.provides)
    if plugin.name not in OWN or not commands:
        return ""
    return (
        f"{plugin.name!r} is a command of dlmkit itself, so the commands of the plugin "
        f"{plugin.name!r} cannot be reached; it must take another name"
    )


def _mounted(command: Command, who: str, words: str | None = None) -> Any:
    """``command`` as the program runs it. Raises PluginError if its target cannot be imported."""
    from dlmkit.registry.lookup import import_target

    found = import_target(command.target, f"command {who}")
    parent = typer.Typer(add_completion=False, rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        parent.add_typer(found, name=command.name)
    else:
        parent.command(command.name, help=words)(found)
    return typer.main.get_group(parent).commands[command.name]


class _Own(Mapping[str, Any]):
    """:data:`OWN` as commands that run, each imported when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        return _mounted(OWN[name], name)

    def __iter__(self) -> Iterator[str]:
        return iter(OWN)

    def __len__(self) -> int:
        return len(OWN)


class Program(TyperGroup):
    """dlmkit's own commands, and one group for every plugin that brings some.

    dlmkit's own are looked up first, so that a plugin can never take one's place; plugins are
    loaded only for a word that is none of them, and for the help.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Own()  # type: ignore[assignment]  # typer only reads it

    def list_commands(self, ctx: Any) -> list[str]:
        return [*OWN, *(name for name in _plugins() if name not in OWN)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in OWN:
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
        rows = [(name, command.summary) for name, command in OWN.items()]
        rows += [(n, _summary(plugin)) for n, plugin in _plugins().items() if n not in OWN]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class PluginGroup(TyperGroup):
    """The commands of one plugin."""

    def __init__(self, plugin: Loaded) -> None:
        self.plugin = plugin
        words = _summary(plugin)
        super().__init__(name=plugin.name, help=words, no_args_is_help=True, rich_markup_mode=None)

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(command.name for command in self.plugin.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        for command in self.plugin.commands:
            if command.name == cmd_name:
                words = visible(command.summary)
                return _mounted(command, f"{self.plugin.name} {cmd_name}", words)
        return None


def _summary(plugin: Loaded) -> str:
    words = f"From {plugin.package}: {'; '.join(command.summary for command in plugin.commands)}"
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
