"""What differs between two resolved recipes, as recipes write it."""

from __future__ import annotations

from dlmkit.documents import ABSENT, Difference
from dlmkit.recipe.write import inline


def line(found: Difference) -> str:
    """A line that says what is new (+), gone (-) or changed."""
    if found.before is ABSENT:
        return f"+ {found.key}: {inline(found.after)}"
    if found.after is ABSENT:
        return f"- {found.key}: {inline(found.before)}"
    return f"  {found.key}: {inline(found.before)} -> {inline(found.after)}"
