"""What differs between two resolved recipes, as recipes write it."""

from __future__ import annotations

from dlmkit.documents import ABSENT, Difference
from dlmkit.recipe.write import inline


def line(difference: Difference) -> str:
    """A line that says what is new (+), gone (-) or changed."""
    if difference.before is ABSENT:
        return f"+ {difference.key}: {inline(difference.after)}"
    if difference.after is ABSENT:
        return f"- {difference.key}: {inline(difference.before)}"
    return f"  {difference.key}: {inline(difference.before)} -> {inline(difference.after)}"
