"""Checks of importers, by the golden folder that each declares."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlmkit.core.importer import Case, Conversion, Family, Place, Slot, Split
from dlmkit.errors import DlmkitError
from dlmkit.plugin import Importer
from dlmkit.registry.loading import Loaded
from dlmkit.registry.lookup import Registry
from dlmkit.released import family as families
from dlmkit.released.fill import owners
from dlmkit.released.opening import Opened, open_released
from dlmkit.released.verify import cases_of, verify
from dlmkit.testing.compare import differs, require
from dlmkit.testing.light import without_torch
from dlmkit.testing.outcome import CheckFailed, NotApplicable
from dlmkit.testing.suite import IMPORTER, check

ODD: tuple[Any, ...] = (None, "odd", -1, 1.5, [], {})
"""What a key of a config is replaced by: a family refuses it, or can do with it."""


@dataclass(frozen=True)
class Imported:
    """An importer and the registry that it stands in. ``plugin`` is what declares it."""

    registry: Registry
    plugin: Loaded
    importer: Importer

    @property
    def golden(self) -> Path:
        """Its golden folder. Raises NotApplicable if it declares none."""
        if self.importer.golden is None:
            raise NotApplicable("it declares no golden folder: Importer(golden=...)")
        return self.importer.golden

    @property
    def config(self) -> dict[str, Any]:
        return families.config_of(self.golden)

    @cached_property
    def family(self) -> Family:
        return families.build(f"{self.plugin.name}:{self.importer.name}", self.importer)

    def opened(self) -> Opened:
        """The model of the golden folder, in fp32."""
        try:
            opened = open_released(self.golden, self.registry, dtype=torch.float32, pickled=True)
        except DlmkitError as error:
            raise CheckFailed(f"its golden folder does not open: {error}") from error
        opened.assembly.objective.eval()
        return opened

    @cached_property
    def cases(self) -> list[Case]:
        """The inputs of its golden cases."""
        try:
            return list(cases_of(self.golden))
        except DlmkitError as error:
            raise CheckFailed(str(error)) from error

    def answers(self, opened: Opened) -> list[Mapping[str, Tensor]]:
        """What the model makes of them."""
        with torch.no_grad():
            return [opened.family.answers(opened.assembly.objective, case) for case in self.cases]


@check(IMPORTER)
def recognises_its_own(subject: Imported) -> None:
    """It recognises its golden folder's config, and no other importer does"""
    known = families.recognised(subject.config, subject.registry)
    expected = f"{subject.plugin.name}:{subject.importer.name}"
    require(expected in known, "it does not recognise its golden folder's config")
    others = [name for name in known if name != expected]
    require(not others, f"{' and '.join(others)} recognise its golden folder's config too")


@check(IMPORTER)
def refuses_others(subject: Imported) -> None:
    """It recognises no config that says nothing, whatever odd things stand in it"""
    for key in ("model_type", "architectures", "vocab_size"):
        for value in ODD:
            config = {key: value}
            try:
                known = subject.importer.recognises(config)
            except Exception as error:
                raise CheckFailed(
                    f"of {config} it raises {type(error).__name__}: {error}"
                ) from error
            require(not known, f"it recognises {config}")


@check(IMPORTER)
def looks_without_torch(subject: Imported) -> None:
    """Recognising a config imports no torch"""
    if subject.plugin.from_file:
        raise NotApplicable("its declarations and its parts lie in one file")
    program = (
        f"import sys, json, {subject.plugin.target} as plugin; config = json.loads(sys.argv[1]); "
        "[i.recognises(config) for i in plugin.register_importers()]"
    )
    without_torch("recognising a config", program, json.dumps(subject.config))


@check(IMPORTER)
def reads_its_config_strictly(subject: Imported) -> None:
    """A key that is missing or odd does no harm, or is refused by a ValueError"""
    config = subject.config
    for key in config:
        for changed in _changed(config, key):
            try:
                conversion = subject.family.convert(changed, {})
            except ValueError:
                continue
            except Exception as error:
                what = f"with {key}: {changed[key]!r}" if key in changed else f"without {key}"
                raise CheckFailed(
                    f"{what} convert raises {type(error).__name__}: {error}; raise ValueError, "
                    "naming the key"
                ) from error
            require(isinstance(conversion, Conversion), "convert returns no Conversion")


def _changed(config: Mapping[str, Any], key: str) -> Iterator[dict[str, Any]]:
    yield {name: value for name, value in config.items() if name != key}
    for odd in ODD:
        yield {**config, key: odd}


@check(IMPORTER)
def golden_cases_agree(subject: Imported) -> None:
    """Expected tensors and decoding steps of its golden folder are met, within its tolerance"""
    try:
        verdict = verify(subject.golden, subject.registry)
    except DlmkitError as error:
        raise CheckFailed(f"its golden folder cannot be verified: {error}") from error
    beyond = [
        f"{d.case}.{d.tensor}: {d.problem or f'{d.largest:.1e}'}"
        for d in verdict.differences
        if d.largest is None or d.largest > verdict.tolerance
    ]
    require(not beyond, f"beyond {verdict.tolerance:.0e}: {', '.join(beyond[:5])}")


@check(IMPORTER)
def every_parameter_is_filled(subject: Imported) -> None:
    """Opened twice, by other seeds, it is the same model: nothing of it comes from chance"""
    torch.manual_seed(1)
    first = subject.opened()
    left = [n for n, t in first.assembly.objective.state_dict().items() if t.device.type == "meta"]
    require(not left, f"nothing fills {', '.join(left[:5])}")
    torch.manual_seed(2)
    said = differs(subject.answers(first), subject.answers(subject.opened()))
    require(not said, f"two openings answer otherwise: {said}")


@check(IMPORTER)
def every_tensor_is_used(subject: Imported) -> None:
    """A change of any tensor of its file changes some answer to its golden cases"""
    opened = subject.opened()
    owner_of = owners(opened.assembly.objective)
    before = subject.answers(opened)
    unused = []
    for name, target in opened.conversion.tensors.items():
        for place in _places(target):
            tensor = (
                owner_of[place.name].tensor[place.at]
                if isinstance(place, Slot)
                else owner_of[place].tensor
            )
            with torch.no_grad():
                kept = tensor.detach().clone()
                # not a multiple of it: norms and shares of a softmax are blind to some of those
                moved = torch.linspace(-1.0, 1.0, kept.numel()).view_as(kept)
                tensor.add_(moved.to(kept) * (kept.abs().mean() + 0.1))
                if not differs(subject.answers(opened), before):
                    unused.append(name)
                tensor.copy_(kept)
    require(not unused, f"nothing depends on {', '.join(unused[:5])}")


def _places(target: Place | Split) -> tuple[Place, ...]:
    return target.places if isinstance(target, Split) else (target,)


@check(IMPORTER)
def attends_as_declared(subject: Imported) -> None:
    """A position's logits depend on those that its conversion's attention says, and no others"""
    opened = subject.opened()
    declared = opened.conversion.attention
    if declared is None:
        raise NotApplicable("its conversion says nothing of attention")
    case = next((c for c in subject.cases if "input_ids" in c.inputs), None)
    if case is None:
        raise NotApplicable("no golden case has input_ids")
    ids = case.inputs["input_ids"][:1]
    length = ids.shape[1]
    inputs = {key: value[:1] for key, value in case.inputs.items() if key != "attention_mask"}
    case = replace(case, inputs={**inputs, "input_ids": ids})
    base = _logits(opened, case)
    block = length if declared == "full" else 1 if declared == "causal" else int(declared)
    for changed in sorted({0, min(block, length) - 1, min(block, length - 1), length - 1}):
        other = ids.clone()
        other[0, changed] = (other[0, changed] + 1) % opened.conversion.size
        after = _logits(opened, replace(case, inputs={**inputs, "input_ids": other}))
        for reader in range(length):
            sees = bool((after[0, reader] != base[0, reader]).any())
            expected = declared == "full" or reader // block >= changed // block
            require(
                sees == expected,
                f"position {reader} {'sees' if sees else 'does not see'} position {changed}, and "
                f"attention is {declared!r}",
            )


def _logits(opened: Opened, case: Case) -> Tensor:
    with torch.no_grad():
        answers = opened.family.answers(opened.assembly.objective, case)
    if "logits" not in answers:
        raise NotApplicable("its answers have no logits")
    return answers["logits"]
