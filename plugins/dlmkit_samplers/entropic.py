"""Grids that follow a cross-entropy profile F(s), measured by training or recorded by a run.

The density of points over ln s is proportional to sqrt(dF / d ln s), with a share of a constant.
It minimises the sum over steps of (change of F) x (log step), each step's being the same: our
definition of equal error. F may be in any unit; the minimum is over all densities of n points.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dlmkit import documents, files, folders
from dlmkit.core.context import BuildContext
from dlmkit.core.grid import Grid
from dlmkit.core.schedule import NoiseSchedule
from dlmkit.errors import DataError
from dlmkit.types import Points
from dlmkit_samplers import configs
from dlmkit_samplers.grids import falling, pinned

Edges = Float[Tensor, "E"]
Pieces = Float[Tensor, "P"]
"""One number for each interval between neighbouring edges: P = E - 1."""

_PIECES = 2048
"""Pieces, equal in ln s, on which the density is constant."""


def log_ratios(schedule: NoiseSchedule) -> Edges:
    """The ends of the pieces, from the least ln s to the greatest."""
    ends = schedule.level(schedule.t_min + falling(schedule, 2) * (schedule.t_max - schedule.t_min))
    high, low = torch.log(ends.ratio)
    log_s: Tensor = low + falling(schedule, _PIECES + 1).flip(0) * (high - low)
    return log_s


def times(schedule: NoiseSchedule, log_s: Points) -> Points:
    """The schedule's time at each ln s."""
    return pinned(schedule.inverse(log_s.exp()), schedule)


def by_density(log_s: Edges, density: Pieces, n: int) -> Points:
    """``n`` values of ln s, greatest first, between which the integral of ``density`` is equal.

    ``density`` is that of each piece between neighbours of ``log_s``, all positive.
    """
    mass = torch.cat((density.new_zeros(1), (density * log_s.diff()).cumsum(0)))
    wanted = torch.linspace(1.0, 0.0, n, dtype=torch.float64, device=mass.device) * mass[-1]
    piece = (torch.searchsorted(mass, wanted, right=True) - 1).clamp(0, len(density) - 1)
    return log_s[piece] + (wanted - mass[piece]) / density[piece]


def root_slope(log_s: Edges, profile: Edges, mix: float) -> Pieces:
    """The density on each piece: (1 - mix) of sqrt(dF / d ln s), normalised, and mix constant.

    A ``profile`` that never rises is no reason to fail: the density is then constant.
    """
    width = log_s.diff()
    root = torch.sqrt((profile.diff() / width).clamp(min=0.0))
    total = (root * width).sum()
    even = torch.full_like(root, 1.0) / width.sum()
    return torch.where(total > 0, torch.lerp(root / total.clamp(min=1e-300), even, mix), even)


class SquareRootEntropic(Grid):
    """The profile is the schedule's own ``cdf``.

    That is the cross-entropy, up to scale, of a schedule whose times are warped to make the loss
    rise evenly (CDCD's), as far as training has fitted it; a share of uniform draws in it flattens
    the profile. With a fixed density it is no measurement, and the grid follows that density.
    """

    def __init__(self, config: configs.Entropic, context: BuildContext) -> None:
        self.mix = config.log_uniform_mix

    def points(self, schedule: NoiseSchedule, n: int) -> Points:
        log_s = log_ratios(schedule)
        t = times(schedule, log_s.flip(0)).flip(0)
        density = root_slope(log_s, schedule.cdf(t), self.mix)
        return times(schedule, by_density(log_s, density, n))


class Fitted(Grid):
    """The profile is a run's mean entropy at each of its levels, made monotone.

    The entropy of a calibrated model's prediction is, on average, its cross-entropy. A trace of
    `dlmkit trace` is such a file. Between recorded levels the profile is linear in ln s; beyond
    them it is flat.
    """

    def __init__(self, config: configs.Fitted, context: BuildContext) -> None:
        self.mix = config.log_uniform_mix
        self.log_s, self.profile = recorded(folders.expanded(config.path))

    def points(self, schedule: NoiseSchedule, n: int) -> Points:
        log_s = log_ratios(schedule)
        at = _interpolate(log_s.cpu(), self.log_s, self.profile).to(log_s.device)
        return times(schedule, by_density(log_s, root_slope(log_s, at, self.mix), n))


def recorded(path: Path) -> tuple[Edges, Edges]:
    """(ln s ascending, entropy made monotone) of a file. Raises DataError for any other file."""
    try:
        files.opened(path).close()  # which refuses what load_file would wait for
        tensors = _json(path) if path.suffix == ".json" else load_file(path)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise DataError(f"grid fitted: {path} cannot be read: {error}") from error
    sigma, entropy = (_mean(tensors, name, path) for name in ("sigma", "entropy"))
    usable = sigma.shape == entropy.shape and len(sigma) > 1
    if not (usable and bool(torch.isfinite(entropy).all() and (sigma > 0).all())):
        raise DataError(
            f"grid fitted: {path} holds {len(sigma)} levels and {len(entropy)} entropies; expected "
            "as many, more than one, all levels positive and all entropies finite"
        )
    order = sigma.argsort()
    return sigma[order].log(), entropy[order].cummax(dim=0).values


def _json(path: Path) -> dict[str, Tensor]:
    content = documents.shaped(documents.read(path), dict[str, list[float] | list[list[float]]])
    return {key: torch.tensor(value, dtype=torch.float64) for key, value in content.items()}


def _mean(tensors: Mapping[str, Tensor], name: str, path: Path) -> Edges:
    """``name``, or a trace's statistic of that name, in T steps; a mean over rows if it has any."""
    values = tensors.get(name, tensors.get(f"statistics.{name}"))
    if values is None or values.ndim not in (1, 2):
        raise DataError(
            f"grid fitted: {path} holds no {name!r} of T numbers or rows of T; "
            f"there are {', '.join(sorted(tensors)) or 'none'}"
        )
    return values.double() if values.ndim == 1 else values.double().mean(dim=0)


def _interpolate(x: Points, xs: Edges, ys: Edges) -> Points:
    """The piecewise-linear function through (xs, ys), flat beyond its ends."""
    x = x.clamp(float(xs[0]), float(xs[-1]))
    k = (torch.searchsorted(xs, x, right=True) - 1).clamp(0, len(xs) - 2)
    share = (x - xs[k]) / (xs[k + 1] - xs[k]).clamp(min=1e-12)
    return torch.lerp(ys[k], ys[k + 1], share)
