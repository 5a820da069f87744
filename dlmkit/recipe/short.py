"""Parts in one word, as command lines name them: ``euler``, ``ancestral:eta=0.5``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dlmkit.errors import RecipeError, UsageError
from dlmkit.plugin import Part
from dlmkit.recipe.problems import Mark, Problem
from dlmkit.recipe.write import inline
from dlmkit.recipe.yaml import parse

NONE = "none"
"""What stands for no part at all, where a recipe's kind may be left out."""

_OPTION = re.compile(r"[A-Za-z_][\w-]*")


class Short(str):
    """A word after ``--set`` that stands for another option, which the user ``typed``."""

    typed: str

    @staticmethod
    def of(word: str, typed: str) -> Short:
        """``word`` for what the user ``typed``."""
        result = Short(word)
        result.typed = typed
        return result


def typed(override: str) -> str:
    """What the user typed: the option that became ``override``, or ``--set`` before it."""
    return override.typed if isinstance(override, Short) else f"--set {override}"


def parse_part(text: str, option: str = "") -> Part:
    """The part that ``name:key=value;key=value`` means.

    ``name`` may hold its plugin (``samplers:ancestral:eta=0.5``). Values are YAML, so a rule of
    rules is ``any:rules=[{use: entropy, with: {threshold: 0.05}}]``. Whether the name exists and
    takes these options is checked with the recipe. Raises UsageError, which names the ``option``
    that ``text`` was given at, for anything else.
    """
    place = f"{option} {text!r}".lstrip()
    head, equals, _ = text.partition("=")
    name, colon, _ = head.rpartition(":") if equals else (head, "", "")
    if not name.strip() or name.strip().endswith(":") or (equals and not colon):
        raise UsageError(f"{place}: expected a name, or name:option=value;option=value")
    options: dict[str, Any] = {}
    for words in split(text[len(name) + 1 :], ";") if equals else ():
        key, value = _assigned(words, place)
        if key in options:
            raise UsageError(f"{place}: the option {key!r} is given twice")
        options[key] = value
    return Part(use=name.strip(), options=options)


def split(text: str, separator: str) -> Iterator[str]:
    """``text`` between ``separator``s that stand in no brackets or quotes."""
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


def _assigned(words: str, place: str) -> tuple[str, Any]:
    key, equals, value = words.partition("=")
    if not equals or not _OPTION.fullmatch(key.strip()):
        raise UsageError(f"{place}: expected option=value, not {words!r}")
    problems: list[Problem] = []
    try:
        node = parse(value, lambda line, column: Mark(0, place), problems)
    except RecipeError as error:
        raise UsageError(str(error)) from error
    if problems:
        raise UsageError(f"{place}: {problems[0].what}")
    return key.strip(), None if node is None else node.plain()


Choice = str | Part | Mapping[str, Any]
"""A part by its name or short form, or as recipes write it: ``{"use": NAME, "with": OPTIONS}``."""


def overrides(
    sampler: Choice | None = None,
    grid: Choice | None = None,
    exit: Choice | None = None,  # noqa: A002
    freeze: Choice | None = None,
    guidance: Sequence[Choice] = (),
    python: bool = False,
) -> list[str]:
    """The words after ``--set`` that short forms stand for; all but the first two may be none.

    A part named as the recipe's own keeps the recipe's other options. Messages call the choices
    options of a command line, or arguments of ``python``.
    """
    option, said = ("{}", "{}={!r}") if python else ("--{}", "--{} {}")
    choices = {"sampler": sampler, "grid": grid, "exit": exit, "freeze": freeze}
    result: list[str] = [
        Short.of(f"{key}={_choice(value, option.format(key))}", said.format(key, value))
        for key, value in choices.items()
        if value is not None
    ]
    if guidance:
        parts = [] if list(guidance) == [NONE] else guidance
        values = ", ".join(_choice(value, option.format("guidance")) for value in parts)
        words = " ".join(said.format("guidance", value) for value in guidance)
        result.append(Short.of(f"guidance=[{values}]", words))
    return result


def _choice(value: Choice, option: str) -> str:
    if isinstance(value, str) and value.strip() == NONE:
        return "null"
    try:
        part = parse_part(value, option) if isinstance(value, str) else Part.model_validate(value)
        return inline(part.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    except ValueError as error:
        raise UsageError(
            f'{option} {value!r}: expected a name, or {{"use": NAME, "with": OPTIONS}}'
        ) from error
