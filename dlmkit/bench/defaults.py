"""From the words of a command to lists of cases, with what stands in for words not said."""

from __future__ import annotations

from collections.abc import Mapping

from dlmkit.bench.cases import Lists, numbers, precisions, words
from dlmkit.bench.flops import evaluation_flops
from dlmkit.bench.parts import parts_of
from dlmkit.bench.rules import families
from dlmkit.errors import UsageError
from dlmkit.model import Model
from dlmkit.plugin import Part
from dlmkit.recipe.short import NONE
from dlmkit.recipe.write import inline

STEPS = "16,32,64"
FULL_STEPS = "8,16,32,64,128"
PRECISIONS = {"cpu": "fp32", "cuda": "fp32,bf16,bf16+graphs"}  # elsewhere fp32,bf16
QUICK_FLOPS = 8e11
"""Of all texts of one row of --quick; with the 24 or so runs of a case, minutes on two cores."""


def quick_size(model: Model, chosen: Lists) -> tuple[int, int]:
    """(texts, timing rounds) of --quick: 256 and 3, or fewer and 1 where a text costs too much."""
    case = max(chosen.cases(), key=lambda case: case.steps)
    network, length = model.assembly.network, model.config.length
    flops = case.steps * evaluation_flops(parts_of(model, case), network, length)
    texts = min(256, max(32, int(QUICK_FLOPS / max(flops, 1)) // 32 * 32))
    return texts, 3 if texts == 256 else 1


def lists(model: Model, texts: Mapping[str, str | None], full: bool, early: bool) -> Lists:
    """The cases that ``texts`` name. Raises UsageError for words that are no list of their kind."""
    config = model.config
    steps = str(config.sample.steps) if early else (FULL_STEPS if full else STEPS)
    device = model.assembly.context.device.type
    return Lists(
        sampler=_parts(model, "sampler", texts["sampler"], full and not early),
        grid=_parts(model, "grid", texts["grid"], full and not early),
        steps=numbers("--steps", texts["steps"] or steps),
        batch_size=numbers("--batch-size", texts["batch_size"] or str(config.sample.batch_size)),
        guidance=words("--guidance", texts["guidance"] or NONE),
        precision=precisions(
            "--precision", texts["precision"] or PRECISIONS.get(device, "fp32,bf16")
        ),
    )


def rules(model: Model, text: str | None, early: bool) -> list[str]:
    """The exit rules to try; all that need nothing but a threshold if none are named."""
    if text is None:
        return families(model) if early else []
    return [word for word in words("--exit", text) if word != NONE]


def _parts(model: Model, kind: str, text: str | None, every: bool) -> list[str]:
    if text is not None:
        return words(f"--{kind}", text)
    current = short(model, kind, getattr(model.config, kind))
    if not every:
        return [current]
    usable = [
        entry.component.name
        for entry in model.assembly.registry.components(kind)
        if not any(f.is_required() for f in entry.component.config.model_fields.values())
    ]
    return [current, *(name for name in usable if name != current.partition(":")[0])]


def short(model: Model, kind: str, part: Part) -> str:
    """``part`` in its short form, without its plugin's name and options left at their defaults."""
    fields = model.assembly.registry.find(kind, part.use).component.config.model_fields
    changed = {key: v for key, v in part.options.items() if v != fields[key].get_default()}
    name = part.use.rpartition(":")[2]
    return f"{name}:{';'.join(f'{k}={inline(v)}' for k, v in changed.items())}" if changed else name


def percentages(option: str, text: str) -> list[int]:
    """Whole percentages below 100. Raises UsageError otherwise."""
    items = words(option, text)
    if not all(item.isdecimal() and int(item) < 100 for item in items):
        raise UsageError(
            f"{option} {text!r}: expected percentages from 0 to 99, such as 0,30,60,90"
        )
    return [int(item) for item in items]


def share(option: str, text: str) -> float:
    """A share written as a percentage: 0.05 for ``5%``. Raises UsageError otherwise."""
    try:
        value = float(text.removesuffix("%")) / 100.0
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: expected a percentage, such as 5%") from error
    if not 0.0 <= value < float("inf"):
        raise UsageError(f"{option} {text!r}: expected a percentage of 0 or more, such as 5%")
    return value
