"""What a check looks at: a component, and how it is built among parts it can stand beside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Denoise
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.errors import RecipeError
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Entry, Registry
from dlmkit.testing.outcome import CheckFailed, NotApplicable
from dlmkit.testing.parts import KIT, LENGTH
from dlmkit.testing.suite import unbuildable

CPU = torch.device("cpu")


@torch.no_grad()
def oracle_queries(space: EmbeddingSpace) -> Tensor:
    """Of every token, a query whose distribution is nearly all on it, (V, Q), by gradient."""
    with torch.enable_grad():
        query = torch.randn(1, space.vocab_size, space.query_dim, requires_grad=True)
        optimiser = torch.optim.Adam([query], lr=0.3)
        token = torch.arange(space.vocab_size)
        for _ in range(150):
            optimiser.zero_grad()
            logits = space.logits(query)[0]
            torch.nn.functional.cross_entropy(logits, token).backward(inputs=[query])
            optimiser.step()
    return query[0].detach()


DEFAULTS = {  # the kinds that a model is assembled from, in this order
    "data": "words",
    "space": "tied",
    "schedule": "plain",
    "network": "mixing",
    "masking": "half",
    "objective": "cross-entropy",
}


def part_of(entry: Entry) -> Part:
    """The choice of ``entry`` with example options: of its component, and of required fields."""
    fields = entry.component.config.model_fields
    required = {
        field.alias or name: field.examples[0]
        for name, field in fields.items()
        if field.is_required() and field.examples
    }
    return Part(use=entry.qualified, options={**required, **entry.component.example})


class Subject:
    """A component to check, and the smallest model it can stand in.

    The other parts are the kit's own, but for capabilities that the component requires: then
    they are of its own plugin, or of whoever provides them.
    """

    def __init__(self, registry: Registry, entry: Entry, device: torch.device = CPU) -> None:
        self.registry = replace(registry, loaded=(*registry.loaded, KIT))
        self.entry = entry
        self.device = device
        self._modules: list[nn.Module] = []

    def on(self, device: torch.device) -> Subject:
        """The same component, built for ``device``; its tensors stay behind until :meth:`move`."""
        return Subject(self.registry, self.entry, device)

    def move(self) -> None:
        """Move every module that was built to the device it was built for."""
        for module in self._modules:
            module.to(self.device)

    @property
    def component(self) -> Any:
        """Its declaration."""
        return self.entry.component

    @cached_property
    def beside(self) -> dict[str, Entry]:
        """The other parts of its model. Raises CheckFailed if nobody provides what it requires."""
        chosen = {
            kind: self.registry.find(kind, f"{KIT.name}:{name}")
            for kind, name in DEFAULTS.items()
            if kind != self.component.kind
        }
        if self.component.kind == "network":
            chosen["space"] = self.registry.find("space", f"{KIT.name}:untied")
        wanted = set(self.component.requires)
        while wanted:
            capability = wanted.pop()
            parts = [*chosen.values(), self.entry]
            if any(capability in self._offers(part) for part in parts):
                continue
            provider = self._provider(capability, chosen)
            chosen[provider.component.kind] = provider
            wanted |= provider.component.requires
            if provider.component.kind == "space":
                self._follow(provider, chosen)
        return chosen

    def _follow(self, space: Entry, chosen: dict[str, Entry]) -> None:
        """A space of its own kind is trained by its own plugin's objective, if it has one."""
        for entry in self.registry.components("objective"):
            if entry.plugin == space.plugin and "objective" in chosen:
                chosen["objective"] = entry

    def _provider(self, capability: str, chosen: Iterable[str]) -> Entry:
        every = [e for e in self.registry.components() if e.component.kind in chosen]
        known = frozenset().union(*map(self._offers, [*every, self.entry]))
        providers = [
            entry
            for entry in every
            if capability in self._offers(entry) and entry.component.requires <= known
        ]
        if not providers:
            raise CheckFailed(f"it requires {capability!r}, which nothing installed provides")
        ranks = {KIT.name: 0, self.entry.plugin: 1}
        # of strangers the plainest: one that provides more is made for something of its own
        return min(providers, key=lambda e: (ranks.get(e.plugin, 2), len(e.component.provides)))

    def _offers(self, entry: Entry) -> frozenset[str]:
        """What an entry provides. Options that are no valid example add nothing."""
        try:
            extra: frozenset[str] = self.options(entry).capabilities()
        except RecipeError:
            extra = frozenset()
        return entry.component.provides | extra

    def options(self, entry: Entry | None = None) -> Any:
        """The options that the kit builds ``entry`` (default: the component) with."""
        entry = entry or self.entry
        return self.registry.options(entry.component.kind, part_of(entry))

    @cached_property
    def config(self) -> Any:
        """Its options. Raises NotApplicable if they are not valid: a check of its own says so."""
        try:
            return self.options()
        except RecipeError as error:
            raise NotApplicable("its example is not valid") from error

    @property
    def context(self) -> BuildContext:
        """A context with fresh other parts, all drawn from the same seed."""
        torch.manual_seed(0)
        context = BuildContext(length=LENGTH, seed=0, device=self.device)
        for kind in DEFAULTS:
            if kind not in self.beside:
                break
            part = self.make(self.beside[kind], context)
            if kind == "data":
                size, pad = part.tokenizer.vocab_size, part.tokenizer.pad_id
                context = replace(context, vocab_size=size, pad_id=pad)
            context = replace(context, parts={**context.parts, kind: part})
        return context

    def make(self, entry: Entry, context: BuildContext) -> Any:
        """The object of ``entry``. Raises NotApplicable if this machine lacks what it needs."""
        if entry is self.entry:
            _ = self.config
        try:
            part = self.registry.build(entry.component.kind, part_of(entry), context)
            if self.device != CPU and isinstance(part, nn.Module):
                self._modules.append(part.to(CPU))
            return part
        except Exception as error:
            if unbuildable(error):
                raise NotApplicable(f"cannot be built here: {error}") from error
            if entry is self.entry:
                raise NotApplicable("it does not build") from error
            raise

    def build(self, context: BuildContext | None = None, seed: int = 0) -> Any:
        """A fresh object of the component, its weights drawn from ``seed``, in training mode."""
        context = self.context if context is None else context
        torch.manual_seed(seed)
        return self.make(self.entry, context)

    @cached_property
    def built(self) -> Any:
        """One object of the component, for checks that leave it as it was."""
        return self.build()

    @cached_property
    def parts(self) -> BuildContext:
        """One context, whose parts checks must leave as they were."""
        return self.context

    @property
    def space(self) -> Any:
        """The space that the component stands beside."""
        return self.parts.part("space")

    @cached_property
    def oracle(self) -> Tensor:
        """Of every token, a query of the space beside it that is nearly certain of it, (V, Q)."""
        return oracle_queries(self.space)

    @property
    def denoise(self) -> Denoise:
        """A denoiser of the model that the component stands in, with random weights."""
        denoise: Denoise = self.parts.part("objective").eval().denoise()
        return denoise
