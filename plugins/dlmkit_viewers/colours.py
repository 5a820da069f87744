"""A scale from 0 to 1 in colours that all readers can order: cividis, dark to bright."""

from __future__ import annotations

import matplotlib

Colour = tuple[int, int, int]

STEPS = 16
"""Colours of the scale; more are not told apart."""


def scale(share: float) -> Colour:
    """Red, green and blue (0 to 255) of ``share``, the nearest of :data:`STEPS` colours."""
    step = round(share * (STEPS - 1)) / (STEPS - 1)
    red, green, blue, _ = matplotlib.colormaps["cividis"](step, bytes=True)
    return int(red), int(green), int(blue)


def ink(paper: Colour) -> Colour:
    """Black or white, whichever has the greater contrast on ``paper`` (WCAG 2.1)."""
    return (0, 0, 0) if luminance(paper) > 0.179 else (255, 255, 255)


def luminance(colour: Colour) -> float:
    """Relative luminance, 0 to 1 (WCAG 2.1)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
              for c in (channel / 255 for channel in colour)]  # fmt: skip
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def hexadecimal(colour: Colour) -> str:
    """``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
