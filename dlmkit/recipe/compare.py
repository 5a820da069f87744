"""Where two resolved recipes differ, key path by key path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from dlmkit.recipe.problems import Path, dotted
from dlmkit.recipe.write import inline


class _Absent:
    """What stands where a key is not given."""


ABSENT = _Absent()


@dataclass(frozen=True)
class Difference:
    """One key path with its value before and after; :data:`ABSENT` where there is none."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is ABSENT:
            return f"+ {self.path}: {inline(self.after)}"
        if self.after is ABSENT:
            return f"- {self.path}: {inline(self.before)}"
        return f"  {self.path}: {inline(self.before)} -> {inline(self.after)}"


def differences(before: Any, after: Any, path: Path = ()) -> Iterator[Difference]:
    """The deepest key paths at which two plain values differ, in order of the first."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys((*before, *after)):
            yield from differences(
                before.get(key, ABSENT), after.get(key, ABSENT), (*path, str(key))
            )
    elif isinstance(before, list) and isinstance(after, list):
        for index, (one, other) in enumerate(zip_longest(before, after, fillvalue=ABSENT)):
            yield from differences(one, other, (*path, index))
    elif type(before) is not type(after) or before != after:
        yield Difference(dotted(path), before, after)
