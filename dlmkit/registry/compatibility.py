"""Which parts can stand in one recipe, by the capabilities that they declare. No torch."""

from __future__ import annotations

from dlmkit.registry.lookup import Entry, Registry


def offers(entry: Entry) -> frozenset[str]:
    """What a component provides with its default options."""
    try:
        extra = entry.component.config().capabilities()
    except ValueError:  # an option without a default
        extra = frozenset()
    return entry.component.provides | extra


def conflicts(entry: Entry, other: Entry, registry: Registry) -> list[str]:
    """Why ``entry`` and ``other`` cannot stand in one recipe; nothing if they can."""
    return [*_lacking(entry, other, registry), *_lacking(other, entry, registry)]


def _lacking(entry: Entry, other: Entry, registry: Registry) -> list[str]:
    """What ``entry`` requires that ``other`` lacks, and only parts of the other's kind provide."""
    reasons = []
    for capability in sorted(entry.component.requires - offers(other)):
        kinds = {e.component.kind for e in registry.components() if capability in offers(e)}
        if kinds == {other.component.kind}:
            reasons.append(f"{entry.qualified} requires {capability!r}")
    return reasons
