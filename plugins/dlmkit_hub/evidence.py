"""What was measured of a model, carried in its folder and shown in its card.

``evaluation.json`` is a record of `dlmkit eval`, ``acceptance.json`` what `dlmkit acceptance
measure` wrote, with its pictures. Both name the model by the sha256 of its weights and options, so
no card shows another model's figures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlmkit import documents
from dlmkit.errors import UsageError
from dlmkit.evaluation.record import RECORD, Estimate
from dlmkit.files import is_png
from dlmkit.model import Model
from dlmkit.model.folder import ACCEPTANCE, EVALUATION, carried
from dlmkit.report import markdown as table
from dlmkit_acceptance import document as acceptance


@dataclass(frozen=True)
class Evidence:
    """Documents and the files that they came from; None where there is none."""

    record: Mapping[str, Any] | None
    acceptance: Mapping[str, Any] | None
    files: Mapping[str, Path]

    @staticmethod
    def of(model: Model, record: Path | None = None, accepted: Path | None = None) -> Evidence:
        """Of the files asked for, or else of those in the model's folder.

        Raises UsageError for one asked for that is of another model, and what reading raises.
        """
        digest, files, held = model.digest(), carried(model), {}
        for name, asked in ((EVALUATION, record), (ACCEPTANCE, accepted)):
            path = asked or files.get(name)
            if path is None:
                continue
            kept = RECORD.read(path, _Evaluation) if name == EVALUATION else acceptance.load(path)
            if kept["subject"]["sha256"] != digest:
                raise UsageError(
                    f"{path} is of another model ({kept['subject']['name']}): its weights or "
                    "options differ from those to export; measure this one"
                )
            held[name], files[name] = kept, path
        if accepted is not None:
            files |= _pictures(accepted)
        return Evidence(held.get(EVALUATION), held.get(ACCEPTANCE), files)

    def sections(self) -> list[str]:
        """The card's chapters on what there is."""
        chapters = [] if self.record is None else [_record(self.record)]
        if self.acceptance is not None:
            chapters += [_acceptance(self.acceptance, self.files), _samples(self.acceptance)]
        return chapters

    def limits(self) -> list[str]:
        """What was measured and falls short."""
        return [] if self.acceptance is None else acceptance.shortfalls(self.acceptance)


class _Part(documents.Shape):
    use: str


class _Sampling(documents.Shape):
    seed: int | str
    steps: int | str
    sampler: _Part
    grid: _Part


class _Protocol(documents.Shape):
    sampling: _Sampling


class _Subject(documents.Shape):
    name: str
    sha256: str


class _Samples(documents.Shape):
    count: int


class _Evaluation(documents.Shape):
    """What a card shows of a record."""

    subject: _Subject
    protocol: _Protocol
    samples: _Samples
    results: dict[str, dict[str, Estimate]]


def _pictures(document: Path) -> dict[str, Path]:
    """The pictures that were drawn beside ``document``, by their names in the folder."""
    stem, stored = document.with_suffix(""), Path(ACCEPTANCE).stem
    drawn = {f"{stored}{end}": Path(f"{stem}{end}") for end in acceptance.PICTURES.values()}
    return {name: path for name, path in drawn.items() if is_png(path)}


def _record(record: Mapping[str, Any]) -> str:
    protocol, samples = record["protocol"], record["samples"]
    under = protocol["sampling"]
    rows = [
        (
            f"{metric}, {name}",
            acceptance.between(number, 4),
            acceptance.between(numbers[f"human_{name}"], 4) if f"human_{name}" in numbers else "",
        )
        for metric, numbers in record["results"].items()
        for name, number in numbers.items()
        if not name.startswith("human_")
    ]
    return (
        f"## Evaluation record\n\n`{EVALUATION}` pins all that moves these numbers: "
        f"{samples['count']} texts of seed {under['seed']}, {under['steps']} steps of "
        f"`{under['sampler']['use']}` on `{under['grid']['use']}`. Intervals: 95 %, by leaving "
        "out texts.\n\n" + table(("number", "value", "human text"), rows)
    )


def _acceptance(document: Mapping[str, Any], files: Mapping[str, Path]) -> str:
    light, dark = (f"acceptance{acceptance.PICTURES[theme]}" for theme in ("light", "dark"))
    picture = ""
    if light in files and dark in files:
        words = "Gain by noise level, and likelihood by entropy"
        picture = (
            f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
            f'<img src="{light}" alt="{words}"></picture>\n\n'
        )
    met = "met" if acceptance.passed(document) else "not met"
    return (
        f"## Beside n-gram models of the same text\n\nThe bar: {acceptance.bar(document)}. It is "
        f"{met}.\n\n{picture}{acceptance.markdown(document)}"
    )


def _samples(document: Mapping[str, Any]) -> str:
    texts: Sequence[str] = document["samples"]
    body = "\n".join(f"--- {index}\n{text}" for index, text in enumerate(texts))
    fence = "```" + max(re.findall("`+", body), default="", key=len)
    return (
        f"## Samples\n\nTexts 0 to {len(texts) - 1} of seed {document['protocol']['seed']}, none "
        f"picked.\n\n{fence}text\n{body}\n{fence}"
    )
