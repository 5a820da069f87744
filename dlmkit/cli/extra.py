"""Commands of plugins, mounted under the plugin's name beside dlmkit's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from dlmkit.loading import Loaded


def _plugins() -> Mapping[str, Loaded]:
    """The plugins that loaded and bring commands, by name."""
    from dlmkit.registry import Registry

    usable = (plugin for plugin in Registry.load().loaded if plugin.state == "ok")
    return {plugin.name: plugin for plugin in usable if plugin.commands}


def unreachable(plugin: Any, ctx: Any) -> str:
    """Why the commands of ``plugin`` cannot be reached; nothing if they can, or it has none."""
    if plugin.name not in ctx.find_root().command.commands or not plugin.commands:
        return ""
    return (
        f"{plugin.name!r} is a command of dlmkit itself, so the commands of the plugin "
        f"{plugin.name!r} cannot be reached; it must take another name"
    )


class Program(TyperGroup):
    """dlmkit's own commands, and one group for every plugin that brings some.

    dlmkit's own are looked up first, so that a plugin can never take one's place; plugins are
    loaded only for a word that is none of them, and for the help.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        return [*own, *(name for name in _plugins() if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        plugin = _plugins().get(cmd_name)
        return None if plugin is None else PluginGroup(plugin)


class PluginGroup(TyperGroup):
    """The commands of one plugin. A command's code is imported when it is asked for."""

    def __init__(self, plugin: Loaded) -> None:
        self.plugin = plugin
        summaries = "; ".join(command.summary for command in plugin.commands)
        words = f"From {plugin.package}: {summaries}"
        super().__init__(name=plugin.name, help=words, no_args_is_help=True, rich_markup_mode=None)

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(command.name for command in self.plugin.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from dlmkit.registry import import_target

        for command in self.plugin.commands:
            if command.name == cmd_name:
                function = import_target(command.target, f"command {self.plugin.name} {cmd_name}")
                app = typer.Typer(
                    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
                )
                app.command(cmd_name, help=command.summary)(function)
                return typer.main.get_command(app)
        return None
