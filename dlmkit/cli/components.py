"""``dlmkit components``: every part that a recipe can name, and its options."""

from __future__ import annotations

from dataclasses import asdict
from inspect import cleandoc
from typing import Annotated, Any

import typer

from dlmkit.cli import options
from dlmkit.cli.output import answer, columns, jsonable, result
from dlmkit.errors import RecipeError
from dlmkit.plugin import KINDS
from dlmkit.recipe.options import Option, options_of
from dlmkit.recipe.write import inline
from dlmkit.registry.declarations import did_you_mean
from dlmkit.registry.lookup import Entry, Registry

components = typer.Typer(no_args_is_help=True, help="The parts that recipes are made of.")

Json = Annotated[bool, options.json("One JSON list.")]


@components.command("list")
def list_components(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="Of this kind only.")] = None,
    as_json: Json = False,
) -> None:
    """List the components of all plugins."""
    entries = Registry.load().components(kind)
    rows = [("KIND", "NAME", "SUMMARY")]
    rows += [(e.component.kind, e.qualified, e.component.summary) for e in entries]
    answer(as_json, [_summary(entry) for entry in entries], columns(rows))


@components.command("show")
def show_components(
    what: Annotated[
        str, typer.Argument(metavar="KIND[/NAME]|NAME", help="E.g. schedule/time-warp.")
    ],
    as_json: Json = False,
) -> None:
    """Show options, defaults, description and owner of one component, or of all of a kind."""
    registry = Registry.load()
    kind, slash, name = what.partition("/")
    entries = [registry.find(kind, name)] if slash else _called(what, registry)
    shown = [(entry, list(options_of(entry.component.config))) for entry in entries]
    words = "\n\n".join(_text(entry, choices) for entry, choices in shown)
    answer(as_json, [_details(entry, choices) for entry, choices in shown], words)


def _called(what: str, registry: Registry) -> list[Entry]:
    """All components of the kind ``what``, or of any kind by this name."""
    if what in KINDS:
        return registry.components(what)
    everything = registry.components()
    entries = [entry for entry in everything if what in (entry.component.name, entry.qualified)]
    if not entries:
        guess = did_you_mean(what, [*KINDS, *(entry.component.name for entry in everything)])
        raise RecipeError(
            f"there is no kind of component {what!r} and no component of this name"
            f"{guess or '; kinds are ' + ', '.join(KINDS)}"
        )
    return entries


def _summary(entry: Entry) -> dict[str, Any]:
    component = entry.component
    return {
        "kind": component.kind,
        "name": component.name,
        "qualified": entry.qualified,
        "plugin": entry.plugin,
        "distribution": entry.distribution,
        "version": entry.version,
        "summary": component.summary,
        "provides": sorted(component.provides),
        "requires": sorted(component.requires),
    }


def _details(entry: Entry, options: list[Option]) -> dict[str, Any]:
    return {
        **_summary(entry),
        "description": _description(entry),
        "options": [jsonable(asdict(option)) for option in options],
    }


def _description(entry: Entry) -> str:
    return cleandoc(entry.component.config.__doc__ or "")


def _text(entry: Entry, options: list[Option]) -> str:
    component = entry.component
    lines = [
        f"{component.kind} {entry.qualified}: {component.summary}",
        f"  from {entry.distribution} {entry.version}".rstrip(),
        *(f"  {line}" for line in _description(entry).splitlines() if line != "No options."),
    ]
    for word, names in (("provides", component.provides), ("requires", component.requires)):
        lines += [f"  {word} {', '.join(sorted(names))}"] if names else []
    rows = [(f"  {o.name}", o.type, _default(o), o.description) for o in options]
    return "\n".join([*lines, *(columns(rows).splitlines() if rows else ["  no options"])])


def _default(option: Option) -> str:
    if option.type == "mapping" and option.default is None:
        return ""
    return "required" if option.required else f"= {inline(option.default)}"


@components.command("reference")
def show_reference() -> None:
    """Print the reference of dlmkit's own hooks, kinds and components, as Markdown."""
    from dlmkit.cli.reference import reference

    result(reference(Registry.load(third_party=False)).rstrip("\n"))
