"""Parts in one word, as command lines name them: ``euler``, ``ancestral:eta=0.5``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from dlmkit.errors import RecipeError, UsageError
from dlmkit.plugin import Part
from dlmkit.recipe.problems import Mark, Problem
from dlmkit.recipe.write import inline
from dlmkit.recipe.yaml import parse

NONE = "none"
"""What stands for no part at all, where a recipe's kind may be left out."""

_OPTION = re.compile(r"[A-Za-z_][\w-]*")


def parse_part(text: str) -> Part:
    """The part that ``name:key=value;key=value`` means.

    ``name`` may hold its plugin (``samplers:ancestral:eta=0.5``). Values are YAML, so a rule of
    rules is ``any:rules=[{use: entropy, with: {threshold: 0.05}}]``. Whether the name exists and
    takes these options is checked with the recipe. Raises UsageError for anything else.
    """
    head, equals, _ = text.partition("=")
    name, colon, _ = head.rpartition(":") if equals else (head, "", "")
    if not name.strip() or name.strip().endswith(":") or (equals and not colon):
        raise UsageError(f"{text!r}: expected a name, or name:option=value;option=value")
    options: dict[str, Any] = {}
    for option in split(text[len(name) + 1 :], ";") if equals else ():
        key, value = _option(option, text)
        if key in options:
            raise UsageError(f"{text!r}: the option {key!r} is given twice")
        options[key] = value
    return Part(use=name.strip(), options=options)


def parse_parts(text: str) -> list[Part | None]:
    """The parts of a list separated by commas; ``none`` stands for None."""
    return [None if item.strip() == NONE else parse_part(item) for item in split(text, ",")]


def split(text: str, separator: str) -> list[str]:
    """``text`` between ``separator``s that stand in no brackets or quotes."""
    return list(_split(text, separator))


def _split(text: str, separator: str) -> Iterator[str]:
    depth, quote, begin, escaped = 0, "", 0, False
    for place, character in enumerate(text):
        if escaped:
            escaped = False
        elif quote:
            escaped = quote == '"' and character == "\\"
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "[]{}":
            depth += 1 if character in "[{" else -1
        elif character == separator and depth == 0:
            yield text[begin:place]
            begin = place + 1
    yield text[begin:]


def _option(option: str, text: str) -> tuple[str, Any]:
    key, equals, value = option.partition("=")
    if not equals or not _OPTION.fullmatch(key.strip()):
        raise UsageError(f"{text!r}: expected option=value, not {option!r}")
    problems: list[Problem] = []
    try:
        node = parse(value, lambda line, column: Mark(0, repr(text)), problems)
    except RecipeError as error:
        raise UsageError(str(error)) from error
    if problems:
        raise UsageError(f"{text!r}: {problems[0].what}")
    return key.strip(), None if node is None else node.plain()


def overrides(
    sampler: str | None = None,
    grid: str | None = None,
    exit: str | None = None,
    freeze: str | None = None,
    guidance: Sequence[str] = (),
) -> list[str]:
    """The words after ``--set`` that short forms stand for; all but the first two may be none.

    A part named as the recipe's own keeps the recipe's other options.
    """
    choices = {"sampler": sampler, "grid": grid, "exit": exit, "freeze": freeze}
    result = [f"{key}={_choice(text)}" for key, text in choices.items() if text is not None]
    if guidance:
        parts = [] if list(guidance) == [NONE] else guidance
        result.append(f"guidance=[{', '.join(map(_choice, parts))}]")
    return result


def _choice(text: str) -> str:
    if text.strip() == NONE:
        return "null"
    return inline(parse_part(text).model_dump(mode="json", by_alias=True, exclude_defaults=True))
