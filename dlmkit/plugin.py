"""What a plugin declares, without torch: parts, recipes, models, importers, commands, bench cases.

A plugin is one module behind one entry point in the group ``dlmkit``, whose name is the plugin's
name, or one Python file that ``dlmkit --plugin FILE`` names, called as the file. Its hooks take no
arguments and return declarations. The module says ``api = 2`` for the version of the interfaces it
is written for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pluggy
from pydantic import BaseModel, ConfigDict, Field

PROJECT = "dlmkit"

API = 2
"""The version of what plugins are written against: this module and the classes of ``dlmkit.core``.

A plugin's module names it, ``api = 2``; one that does not was written for 1.
"""

MOST = 2**20
"""The largest :data:`Size`."""

Size = Annotated[int, Field(gt=0, le=MOST)]
"""The type of an option that says how many of something are held in memory at once: rows,
positions, channels. What several sizes take together is reckoned before it is allocated."""

Depth = Annotated[int, Field(gt=0, le=2**12)]
"""The type of a number of blocks or layers, each of which takes time to build as well."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
"""The type of an option that is a share of something, or a chance."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

KINDS: Mapping[str, str] = {
    "schedule": "corruption level (alpha, sigma) at a time, and the density times are drawn from",
    "space": "where tokens live while they are noised: embedding, corruption and read-out",
    "network": "the score network: noisy rows in, one hidden vector per position out",
    "objective": "the training loss: the only thing that trains",
    "masking": "which positions are given, not noised",
    "sampler": "one step from a noise level to the next",
    "order": "which open positions of a masked model come first",
    "quota": "how many of them are written at a step",
    "remask": "which written positions of a masked model go back",
    "grid": "the noise levels that a sampler visits",
    "exit": "when a row may stop before the end of the grid",
    "guidance": "a wrapper that changes predictions while sampling",
    "statistic": "a number per row and step that exit rules read",
    "data": "text and its tokenizer",
    "metric": "a measure of generated text",
    "tracker": "a consumer of a training run's records",
}
"""The kinds of component, in the order recipes list them."""


class Config(BaseModel):
    """Base of every component's options: frozen, closed, without torch."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        allow_inf_nan=False,  # an option that infinity suits says so: Field(allow_inf_nan=True)
        ser_json_inf_nan="constants",
        defer_build=True,  # most commands read the options of few parts, or of none
    )

    def capabilities(self) -> frozenset[str]:
        """What these options make the part provide, beside its component's ``provides``."""
        return frozenset()


class Part(Config):
    """A user's choice of one component: ``{use: name, with: {option: value}}``.

    ``use`` is a short name or ``plugin:name``. After a recipe is resolved, ``use`` is the
    qualified name and ``options`` holds every option, defaults included.
    """

    use: str
    options: dict[str, Any] = Field(default_factory=dict, alias="with")


PART_SCHEMA_KEY = "x-dlmkit-kind"
"""In a config's JSON Schema, marks a field that names a part, with its kind."""


@dataclass(frozen=True, slots=True)
class PartOf:
    """Marks a :class:`Part` field of a config with the kind it must name."""

    kind: str

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "object", PART_SCHEMA_KEY: self.kind}


@dataclass(frozen=True, slots=True)
class ComparedWith:
    """Marks a number of an exit rule's config with the statistic that it is compared with.

    ``threshold: Annotated[float, ComparedWith("entropy")]``: calibration and the bench try it at
    values that the statistic takes.
    """

    statistic: str


def part_of(kind: str) -> Any:
    """The type of a config field that names a nested component, e.g. ``list[part_of("exit")]``."""
    return Annotated[Part, PartOf(kind)]


@dataclass(frozen=True, slots=True)
class Component:
    """One named part that a plugin provides.

    ``target`` is ``"module:callable"``, imported only when the part is built and called as
    ``callable(config, context)`` with an instance of ``config`` and a
    :class:`dlmkit.core.context.BuildContext`. ``requires`` lists capabilities that some other
    part of the recipe must list in its ``provides``; a recipe that lacks one is refused.

    ``example`` holds options that the conformance kit builds the part with: small sizes. Those
    without a default it takes from ``Field(examples=[...])``. ``expected_failures`` maps checks of
    the kit that the part cannot pass to the reason; one that passes all the same is a failure.
    """

    kind: str
    name: str
    summary: str
    config: type[Config]
    target: str
    provides: frozenset[str] = frozenset()
    requires: frozenset[str] = frozenset()
    example: Mapping[str, Any] = field(default_factory=dict, hash=False)
    expected_failures: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe file that a plugin ships under a name."""

    name: str
    path: Path

    @staticmethod
    def beside(module: str, *names: str) -> Sequence[Recipe]:
        """The recipes ``NAME.yaml`` in the folder of ``module``, a plugin's ``__file__``."""
        return [Recipe(name, Path(module).with_name(f"{name}.yaml")) for name in names]


@dataclass(frozen=True, slots=True)
class ShippedModel:
    """A trained model that a plugin ships: ``path`` is a folder in the form of a checkpoint."""

    name: str
    summary: str
    path: Path


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository of the hub that an importer was made for: its model's parameters, and how many
    bytes each takes as stored (bf16: 2)."""

    name: str
    parameters: int
    stored: int = 2


@dataclass(frozen=True, slots=True)
class Importer:
    """A family of models that others released.

    ``recognises`` is called with what a folder's ``config.json`` holds and says whether that is
    of the family, by keys such as ``model_type``; it must not import torch. ``target`` is
    ``"module:class"``, a :class:`dlmkit.core.importer.Family`, made without arguments. ``mask``
    says which token is the mask and ``verified`` what was compared with what.

    ``golden`` is a small folder of the family, with made-up weights and what the authors' code
    makes of some inputs, in the layout of `dlmkit models verify`: the conformance kit checks the
    importer by it. ``expected_failures`` are those of a :class:`Component`.
    """

    name: str
    summary: str
    recognises: Callable[[Mapping[str, Any]], bool]
    target: str
    models: Sequence[HubModel] = ()
    mask: str = ""
    verified: str = "nothing"
    golden: Path | None = None
    expected_failures: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a plugin, mounted as ``dlmkit PLUGIN NAME``.

    ``target`` is ``"module:function"``, imported when the command is run or its help is shown;
    the function's parameters are the command's, as in typer. ``top`` mounts it as ``dlmkit NAME``:
    for the plugins of dlmkit's own distribution alone, so that no other can ever take a name that
    dlmkit comes to use. A plugin of another package that asks for it is refused.
    """

    name: str
    summary: str
    target: str
    top: bool = False


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A case for ``dlmkit bench``. ``target`` is ``"module:callable"``.

    It does its setting up and returns a callable without arguments, which is what is timed. It is
    called without arguments, or with the ``torch.device`` that is measured if it has a parameter
    ``device``.
    """

    name: str
    summary: str
    target: str


class Hooks:
    """The hooks a plugin may implement. All results are collected; order means nothing."""

    @hookspec
    def register_components(self) -> Sequence[Component]:
        """Return the components this plugin provides."""
        return ()

    @hookspec
    def register_recipes(self) -> Sequence[Recipe]:
        """Return the recipe files this plugin ships."""
        return ()

    @hookspec
    def register_models(self) -> Sequence[ShippedModel]:
        """Return the trained models this plugin ships."""
        return ()

    @hookspec
    def register_importers(self) -> Sequence[Importer]:
        """Return the families of released models that this plugin opens."""
        return ()

    @hookspec
    def register_commands(self) -> Sequence[Command]:
        """Return the commands this plugin adds under its own name."""
        return ()

    @hookspec
    def register_benchmarks(self) -> Sequence[Benchmark]:
        """Return the cases this plugin adds to `dlmkit bench`."""
        return ()
