"""The reference page: hooks, declarations, kinds, components and what goes together."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from dataclasses import fields
from inspect import cleandoc, getsource
from typing import Any

from dlmkit.plugin import (
    KINDS,
    Benchmark,
    Command,
    Component,
    Hooks,
    HubModel,
    Importer,
    Recipe,
    ShippedModel,
)
from dlmkit.recipe.options import options_of
from dlmkit.recipe.write import inline
from dlmkit.registry.compatibility import conflicts, offers
from dlmkit.registry.lookup import Entry, Registry

_DECLARED: tuple[Any, ...] = (
    Component,
    Recipe,
    ShippedModel,
    Importer,
    HubModel,
    Command,
    Benchmark,
)
_BESIDE_SPACES = ("schedule", "network", "objective", "sampler", "exit", "guidance", "statistic")


def reference(registry: Registry) -> str:
    """The page as Markdown."""
    parts = [_head(), _hooks(), _declarations()]
    parts += [_kind(kind, registry) for kind in KINDS]
    return "\n\n".join([*parts, _matrix(registry)]).replace("``", "`") + "\n"


def _head() -> str:
    return cleandoc(
        """
        # Reference

        Hooks, declarations, the interface and the components of every kind, and which parts go
        together. Generated: `dlmkit components reference > plugins/REFERENCE.md`.
        """
    )


def _hooks() -> str:
    names = [name for name in vars(Hooks) if name.startswith("register_")]
    rows = [f"| `{name}()` | {_line(getattr(Hooks, name))} |" for name in names]
    return "\n".join(["## Hooks", "", "| hook | returns |", "|---|---|", *rows])


def _line(thing: Any) -> str:
    return cleandoc(thing.__doc__ or "").partition("\n")[0]


def _declarations() -> str:
    lines = ["## Declarations", "", "All are in `dlmkit.plugin`."]
    for declared in _DECLARED:
        listed = ", ".join(f"`{field.name}`" for field in fields(declared))
        lines += ["", f"**{declared.__name__}**: {listed}.", "", cleandoc(declared.__doc__ or "")]
    return "\n".join(lines)


def _kind(kind: str, registry: Registry) -> str:
    from dlmkit.core.kinds import INTERFACES

    interface = INTERFACES[kind]
    lines = [f"## {kind}", "", f"{KINDS[kind].capitalize()}.", ""]
    lines += [f"Interface: `{interface.__module__}.{interface.__name__}`. {_line(interface)}", ""]
    lines += ["```python", *_methods(interface), "```"]
    for entry in registry.components(kind):
        lines += ["", *_component(entry)]
    return "\n".join(lines)


def _methods(interface: type) -> Iterator[str]:
    """The signatures that a subclass must fill in, as they stand in the source; all, if none."""
    tree = ast.parse(getsource(importlib.import_module(interface.__module__)))
    (body,) = (
        node.body
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == interface.__name__
    )
    methods = [method for method in body if isinstance(method, ast.FunctionDef)]
    for method in [method for method in methods if _abstract(method)] or methods:
        returns = ast.unparse(method.returns) if method.returns else "Any"
        yield f"def {method.name}({ast.unparse(method.args)}) -> {returns}"


def _abstract(method: ast.FunctionDef) -> bool:
    return any(ast.unparse(decorator) == "abstractmethod" for decorator in method.decorator_list)


def _component(entry: Entry) -> Iterator[str]:
    component = entry.component
    yield f"### {component.kind} `{entry.qualified}`"
    yield ""
    yield f"{component.summary}."
    for word, names in (("Provides", offers(entry)), ("Requires", component.requires)):
        if names:
            yield f"{word} {', '.join(f'`{name}`' for name in sorted(names))}."
    options = list(options_of(component.config))
    if options:
        yield from ("", "| option | type | default | meaning |", "|---|---|---|---|")
    for option in options:
        nested = option.type == "mapping" and option.default is None
        default = "required" if option.required else "" if nested else inline(option.default)
        cells = (f"`{option.name}`", option.type, default, option.description)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _matrix(registry: Registry) -> str:
    """Which space works with which parts; a recipe with an impossible pair is refused."""
    spaces = registry.components("space")
    lines = ["## Which parts go with which space", ""]
    lines += ["By declared capabilities; `dlmkit recipe check` refuses the other pairs.", ""]
    lines += [f"| part | {' | '.join(f'`{space.qualified}`' for space in spaces)} |"]
    lines += [f"|---|{'---|' * len(spaces)}"]
    for kind in _BESIDE_SPACES:
        for entry in registry.components(kind):
            cells = (", ".join(conflicts(entry, space, registry)) or "yes" for space in spaces)
            lines.append(f"| {kind} `{entry.qualified}` | {' | '.join(cells)} |")
    return "\n".join(lines)
