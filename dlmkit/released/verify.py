"""A released model against a reference's outputs, in the layout that the README describes.

``cases.safetensors`` holds tensors ``CASE.NAME``, inputs and what the reference returned, and
``meta.json`` lists which are which, with the ``settings`` of decoding runs. ``CASE.compare`` (and
``compare_NAME``) is true where a difference counts. ``decoding.json`` holds decoding runs: their
settings and prompts, what every step took, and the final ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dlmkit import documents, files, rows
from dlmkit.core.importer import Case, Decoded, Taken
from dlmkit.errors import CheckpointError, DlmkitError, describe
from dlmkit.registry.lookup import Registry
from dlmkit.released.family import config_of
from dlmkit.released.opening import Opened, open_released

CASES, META, DECODING = "cases.safetensors", "meta.json", "decoding.json"


class _Case(documents.Shape):
    inputs: list[str]
    expected: list[str]


class _Taken(documents.Shape):
    step: int
    row: int
    positions: list[int]
    tokens: list[int]
    confidence: list[float] | None = None


class _Run(documents.Shape):
    model_config = ConfigDict(frozen=True, extra="allow")  # the rest is the family's own

    name: str
    final_ids: list[list[int]]
    network_calls: int
    steps: list[_Taken] | None = None
    states: list[list[list[int]]] | None = None

    def taken(self) -> Iterator[_Taken]:
        """What every step settled: as it is recorded, or what whole states have of it."""
        yield from self.steps or ()
        for step, (here, after) in enumerate(pairwise(self.states or ())):
            for row, (old, new) in enumerate(zip(here, after, strict=True)):
                moved = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
                tokens = [new[place] for place in moved]
                yield _Taken(step=step, row=row, positions=moved, tokens=tokens)


class _Runs(documents.Shape):
    runs: list[_Run]


class _Meta(documents.Shape):
    cases: dict[str, _Case]
    settings: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class TensorDifference:
    """The largest difference of one expected tensor, or why there is none to compute."""

    case: str
    tensor: str
    largest: float | None
    problem: str = ""


@dataclass(frozen=True)
class Verification:
    """What comparing a folder showed. ``missing`` are decoding runs that nothing here decodes."""

    opened: Opened
    differences: list[TensorDifference]
    missing: list[str]

    @property
    def tolerance(self) -> float:
        return self.opened.family.tolerance

    @property
    def agrees(self) -> bool:
        """Whether every expected tensor is within the family's tolerance."""
        return all(d.largest is not None and d.largest <= self.tolerance for d in self.differences)


def verify(folder: Path, registry: Registry, device: torch.device | str = "cpu") -> Verification:
    """Open ``folder`` like any released model, and compare every expected tensor of every case.

    Raises CheckpointError if the cases cannot be read, and what opening raises.
    """
    config_of(folder)  # what is no released model at all is told so first
    meta, tensors = _cases(folder)
    opened = open_released(folder, registry, device=device, dtype=torch.float32, pickled=True)
    opened.assembly.objective.eval()
    where = opened.assembly.context.device
    differences: list[TensorDifference] = []
    for asked in cases_of(folder):
        asked = replace(asked, inputs=rows.to(dict(asked.inputs), where))
        with _computed(f"{folder / META}: the case {asked.name:.60}"):
            answers = opened.family.answers(opened.assembly.objective, asked)
            for key in meta.cases[asked.name].expected:
                differences.append(
                    _compared(tensors, asked.name, key, answers, opened.family.tolerance)
                )
    missing = []
    for run in _runs(folder):
        with _computed(f"{folder / DECODING}: the run {run.name:.60}"):
            decoded = opened.family.decoded(opened.assembly.objective, run.model_dump())
            if decoded is None:
                missing.append(run.name)
            else:
                differences += _decoded(run, decoded)
    return Verification(opened, differences, missing)


@contextmanager
def _computed(what: str) -> Iterator[None]:
    """Whatever the inputs of a reference make a model raise is an error of their folder."""
    try:
        yield
    except DlmkitError:
        raise
    except Exception as error:  # the network's own kinds, a dozen
        why = f"it has no input {error}" if isinstance(error, KeyError) else describe(error)
        raise CheckpointError(f"{what} cannot be computed: {why:.300}") from error


def cases_of(folder: Path) -> Iterator[Case]:
    """The inputs of the cases in ``folder``. Raises CheckpointError if they cannot be read."""
    meta, tensors = _cases(folder)
    for name, case in meta.cases.items():
        given = {key: _input(_tensor(tensors, name, key)) for key in case.inputs}
        yield Case(name, given, meta.settings)


def _input(tensor: Tensor) -> Tensor:
    """Ids are of 64 bits, however they are stored."""
    whole = not (tensor.is_floating_point() or tensor.dtype == torch.bool)
    return tensor.long() if whole else tensor


def _cases(folder: Path) -> tuple[_Meta, dict[str, Tensor]]:
    try:
        meta = documents.shaped(documents.read(folder / META), _Meta)
        tensors = load_file(folder / CASES)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} holds no {META} and {CASES} to compare with: {files.why(error)}"
        ) from error
    if not any(case.expected for case in meta.cases.values()):
        raise CheckpointError(f"{folder / META} expects no tensor of any case")
    return meta, tensors


def _runs(folder: Path) -> list[_Run]:
    path = folder / DECODING
    if not path.is_file():
        return []
    try:
        return documents.shaped(documents.read(path), _Runs).runs
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _decoded(run: _Run, decoded: Decoded) -> list[TensorDifference]:
    """How many of the final ids, of the steps' choices and of the network's calls are others, and
    how far confidences are apart."""
    expected = torch.tensor(run.final_ids)
    ids = decoded.ids.cpu()
    if ids.shape != expected.shape:
        shapes = f"shape {tuple(ids.shape)}, expected {tuple(expected.shape)}"
        return [TensorDifference(run.name, "final_ids", None, shapes)]
    calls = abs(decoded.calls - run.network_calls)
    differences = [
        TensorDifference(run.name, "final_ids", float((ids != expected).sum())),
        TensorDifference(run.name, "network_calls", float(calls)),
    ]
    if run.steps is None and run.states is None:
        return differences
    theirs, ours = _places(run.taken()), _places(decoded.taken)
    both = theirs.keys() & ours.keys()
    others = theirs.keys() ^ ours.keys() | {k for k in both if theirs[k][0] != ours[k][0]}
    differences.append(TensorDifference(run.name, "steps", float(len(others))))
    pairs = [(theirs[key][1], ours[key][1]) for key in both]
    apart = [abs(a - b) for a, b in pairs if a is not None and b is not None]
    if apart:
        differences.append(TensorDifference(run.name, "confidence", max(apart)))
    return differences


def _places(
    steps: Iterable[_Taken | Taken],
) -> dict[tuple[int, int, int], tuple[int, float | None]]:
    """By (step, row, position): the token that was taken there, and how confident the rule was."""
    by_place: dict[tuple[int, int, int], tuple[int, float | None]] = {}
    for taken in steps:
        places, unknown = taken.positions, [None] * len(taken.positions)
        sure: Sequence[float | None] = taken.confidence or unknown
        for place, token, confidence in zip(places, taken.tokens, sure, strict=True):
            by_place[taken.step, taken.row, place] = token, confidence
    return by_place


def _tensor(tensors: Mapping[str, Tensor], case: str, name: str) -> Tensor:
    if f"{case}.{name}" not in tensors:
        raise CheckpointError(f"{CASES} has no {case}.{name}, which {META} lists")
    return tensors[f"{case}.{name}"]


def _compared(
    tensors: Mapping[str, Tensor],
    case: str,
    name: str,
    answers: Mapping[str, Tensor],
    tolerance: float,
) -> TensorDifference:
    expected = _tensor(tensors, case, name)
    if name not in answers:
        return TensorDifference(case, name, None, "the importer gives no such tensor")
    answer = answers[name].cpu()
    if answer.shape != expected.shape:
        shapes = f"shape {tuple(answer.shape)}, expected {tuple(expected.shape)}"
        return TensorDifference(case, name, None, shapes)
    counts = tensors.get(f"{case}.compare_{name}")
    if counts is None:
        counts = tensors.get(f"{case}.compare")
    apart = (answer.double() - expected.double()).abs()
    apart = torch.where(answer == expected, 0.0, apart)  # equal infinities too
    if expected.is_floating_point():
        # of numbers like MDLM's -1e6 the last two bits are further apart than what counts
        bits = torch.finfo(expected.dtype).eps * expected.double().abs()
        rounded = expected.isfinite() & (bits > tolerance) & (apart <= bits)
        apart = apart.masked_fill(rounded, 0.0)
    if counts is not None:
        apart = apart[counts.bool()]
    if bool(apart.isnan().any()):
        return TensorDifference(case, name, None, "some of it is not a number")
    largest = float(apart.max()) if apart.numel() else 0.0
    return TensorDifference(case, name, largest)
