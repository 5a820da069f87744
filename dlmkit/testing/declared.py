"""Checks of declarations: those of a plugin, and those that hold for components of every kind."""

from __future__ import annotations

import importlib
import pickle

from pydantic_core import to_json
from torch import nn

from dlmkit.errors import DlmkitError
from dlmkit.plugin import Benchmark, Command
from dlmkit.recipe.load import load_recipe
from dlmkit.recipe.options import options_of
from dlmkit.recipe.write import dump
from dlmkit.recipe.yaml import read_text
from dlmkit.registry.declarations import DECLARED
from dlmkit.registry.loading import Loaded
from dlmkit.registry.lookup import Registry, import_target
from dlmkit.testing.compare import agree, require
from dlmkit.testing.light import without_torch
from dlmkit.testing.outcome import CheckFailed, NotApplicable
from dlmkit.testing.subject import Subject, part_of
from dlmkit.testing.suite import CHECKS, EVERY, PLUGIN, check, located, unbuildable
from dlmkit.training.checkpoint import find

About = tuple[Loaded, Registry]


@check(PLUGIN)
def loads(about: About) -> None:
    """The plugin loads"""
    require(about[0].state == "ok", f"it {about[0].state}: {about[0].reason}")


@check(PLUGIN)
def imports_no_torch(about: About) -> None:
    """Its module imports no torch, so that listing and checking stay quick"""
    if about[0].from_file:
        raise NotApplicable("its declarations and its parts lie in one file")
    without_torch("importing it alone", f"import {about[0].target}")


@check(PLUGIN)
def hooks_repeat_themselves(about: About) -> None:
    """Its hooks return the same declarations every time"""
    module = importlib.import_module(about[0].target)
    for hook in DECLARED:
        function = vars(module).get(hook)
        if function is not None:
            require(function() == function(), f"{hook}() returned two different lists")


@check(PLUGIN)
def offers_something(about: About) -> None:
    """It declares something"""
    plugin = about[0]
    items = [item for declared in DECLARED.values() for item in getattr(plugin, declared.field)]
    require(items, "it declares no component, recipe, model, command or benchmark")


@check(PLUGIN)
def recipes_resolve(about: About) -> None:
    """Its recipes are valid"""
    plugin, registry = about
    for recipe in plugin.recipes:
        try:
            load_recipe(f"{plugin.name}:{recipe.name}", registry=registry)
        except DlmkitError as error:
            raise CheckFailed(f"recipe {recipe.name!r}: {error}") from error


@check(PLUGIN)
def models_are_complete(about: About) -> None:
    """Its models are checkpoints with nothing missing or altered"""
    for model in about[0].models:
        try:
            find(model.path)
        except DlmkitError as error:
            raise CheckFailed(f"model {model.name!r}: {error}") from error


@check(PLUGIN)
def targets_import(about: About) -> None:
    """What its commands and benchmarks name can be imported and called"""
    named: list[Command | Benchmark] = [*about[0].commands, *about[0].benchmarks]
    for declared in named:
        try:
            import_target(declared.target, declared.name)
        except DlmkitError as error:
            raise CheckFailed(str(error)) from error


@check(EVERY)
def options_are_described(subject: Subject) -> None:
    """Its summary is one line, its config has a docstring, and every option a description"""
    component = subject.component
    require("\n" not in component.summary, "the summary is longer than a line")
    config = component.config
    require((config.__doc__ or "").strip(), f"{config.__name__} has no docstring")
    bare = [option.name for option in options_of(config) if not option.description]
    require(not bare, f"these options have no description: {', '.join(bare)}")


@check(EVERY)
def example_is_valid(subject: Subject) -> None:
    """Its example holds every option that has no default, and is valid"""
    try:
        subject.options()
    except DlmkitError as error:
        raise CheckFailed(
            f"{error}; give the options that have no default an example: Field(examples=[...])"
        ) from error


@check(EVERY)
def options_round_trip(subject: Subject) -> None:
    """Its options survive being written to a recipe and read back"""
    config = subject.config
    written = dump(config.model_dump(mode="json", by_alias=True) or {"none": None})
    node = read_text(written, "recipe", []).plain() if type(config).model_fields else {}
    again = type(config).model_validate_json(to_json(node), strict=True)
    require(again == config, f"{config!r} came back as {again!r}")


@check(EVERY)
def options_are_picklable(subject: Subject) -> None:
    """Its declaration and its options can be sent to a worker process"""
    for value in (subject.component, subject.config):
        try:
            again = pickle.loads(pickle.dumps(value))
        except Exception as error:
            raise CheckFailed(f"{type(value).__name__} cannot be pickled: {error}") from error
        require(again == value, f"{type(value).__name__} is another one after pickling")


@check(EVERY)
def target_imports(subject: Subject) -> None:
    """Its target can be imported and called"""
    component = subject.component
    try:
        import_target(component.target, component.name)
    except DlmkitError as error:
        raise CheckFailed(str(error)) from error


@check(EVERY)
def builds(subject: Subject) -> None:
    """It builds an instance of its kind's interface"""
    kind, part = subject.component.kind, part_of(subject.entry)
    _ = subject.config
    try:
        subject.registry.build(kind, part, subject.context)
    except NotApplicable:
        raise
    except Exception as error:
        if unbuildable(error):
            raise NotApplicable(f"cannot be built here: {error}") from error
        raise CheckFailed(located(error)) from error


@check(EVERY)
def weights_follow_the_seed(subject: Subject) -> None:
    """Parameters and buffers are a function of the seed alone, to rounding"""
    if not isinstance(subject.built, nn.Module):
        raise NotApplicable("no module")
    first, again = (subject.build(seed=3).state_dict() for _ in range(2))
    agree(first, again, "the weights of two builds with one seed", 1e-6)


@check(EVERY)
def expected_failures_exist(subject: Subject) -> None:
    """Its expected failures name checks of its kind, each with a reason"""
    names = {check.name for kind in (EVERY, subject.component.kind) for check in CHECKS[kind]}
    for name, reason in subject.component.expected_failures.items():
        require(name in names, f"there is no check {name!r} for a {subject.component.kind}")
        require(isinstance(reason, str) and reason.strip(), f"{name!r} is given no reason")
