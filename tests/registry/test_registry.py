"""Finding components by name, and building them."""

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.errors import PluginError, RecipeError
from dlmkit.noise import Noise
from dlmkit.plugin import Part
from dlmkit.registry.declarations import check
from dlmkit.registry.lookup import Registry

PARTS = """
import torch
from pydantic import Field
from dlmkit import Component, Config, hookimpl, part_of
from dlmkit.core.masking import Masking

class First(Config):
    count: int = Field(2, ge=0)

class Flip(Config):
    inner: part_of("masking")

class FirstMasking(Masking):
    def __init__(self, config, context):
        self.count = config.count

    def draw(self, attend, noise):
        return torch.arange(attend.shape[1]).expand(attend.shape) < self.count

class FlipMasking(Masking):
    def __init__(self, config, context):
        self.inner = context.build("masking", config.inner)

    def draw(self, attend, noise):
        return ~self.inner.draw(attend, noise)

def fails(config, context):
    raise LookupError("nothing here")

number = 3

@hookimpl
def register_components():
    return [
        Component("masking", "first", "the first tokens", First, f"{__name__}:FirstMasking"),
        Component("masking", "flip", "the others", Flip, f"{__name__}:FlipMasking"),
        Component("masking", "prefix", "also called prefix", First, f"{__name__}:FirstMasking"),
        Component("masking", "gone", "no module", First, "not_there:X"),
        Component("masking", "lost", "no attribute", First, f"{__name__}:Lost"),
        Component("masking", "number", "not callable", First, f"{__name__}:number"),
        Component("masking", "wrong", "not a masking", First, "builtins:slice"),
        Component("masking", "fails", "raises", First, f"{__name__}:fails"),
    ]
"""

CONTEXT = BuildContext(length=4)


@pytest.fixture
def registry(install) -> Registry:
    install("acme", PARTS)
    return Registry.load()


def refused(registry: Registry, kind: str, name: str) -> tuple[type, str]:
    with pytest.raises((RecipeError, PluginError)) as caught:
        registry.find(kind, name)
    return caught.type, str(caught.value)


def test_short_and_qualified_names_find_one_component(registry):
    assert registry.find("masking", "first") == registry.find("masking", "acme:first")
    assert registry.find("masking", "first").qualified == "acme:first"


def test_a_name_of_two_plugins_is_refused_only_when_used(registry):
    assert refused(registry, "masking", "prefix") == (
        RecipeError,
        "masking 'prefix' is provided by several plugins: write 'acme:prefix' or 'cdcd:prefix'",
    )
    assert registry.find("masking", "cdcd:prefix").plugin == "cdcd"
    assert registry.find("masking", "acme:prefix").plugin == "acme"


@pytest.mark.parametrize(
    ("kind", "name", "error", "message"),
    [
        (
            "mask",
            "first",
            RecipeError,
            "there is no kind of component 'mask', did you mean 'remask' or 'masking'?",
        ),
        (
            "masking",
            "frist",
            RecipeError,
            "nobody provides a masking named 'frist', did you mean 'first'?",
        ),
        (
            "masking",
            "acme:frist",
            RecipeError,
            "plugin 'acme' provides no masking 'frist', did you mean 'first'?",
        ),
        ("schedule", "acme:first", RecipeError, "plugin 'acme' provides no schedule 'first'"),
        (
            "masking",
            "acmee:first",
            PluginError,
            "no plugin named 'acmee' is installed, did you mean 'acme'?; install the package "
            "that provides it, or name its file by --plugin ('dlmkit plugins list' shows "
            "what there is)",
        ),
    ],
)
def test_unknown_names(registry, kind, name, error, message):
    found, text = refused(registry, kind, name)
    assert found is error
    assert text.partition("; not loaded")[0] == message


def test_a_failed_plugin_says_why(install):
    install("bad", "raise SystemExit(3)")
    registry = Registry.load()
    assert refused(registry, "masking", "bad:first") == (
        PluginError,
        "plugin 'bad' (bad 1.0) failed to load: SystemExit: 3",
    )
    assert "bad (see 'dlmkit plugins list')" in refused(registry, "masking", "anything")[1]


def test_a_blocked_plugin_says_why(install, monkeypatch):
    install("acme", PARTS)
    monkeypatch.setenv("DLMKIT_PLUGINS", "other")
    assert refused(Registry.load(), "masking", "acme:first") == (
        PluginError,
        "plugin 'acme' (acme 1.0) is blocked: DLMKIT_PLUGINS does not list it",
    )


def test_a_short_name_that_a_failed_plugin_declared_is_known(install):
    install("acme", PARTS.replace('"not_there:X"', '"not there"'))
    error, message = refused(Registry.load(), "masking", "first")
    assert error is PluginError
    assert message == (
        "masking 'first': plugin 'acme' (acme 1.0) failed to load: "
        "masking 'gone': target 'not there' is not 'module:callable'"
    )


def test_parts_are_built_with_their_options_and_nest(registry):
    part = Part(use="flip", options={"inner": Part(use="first", options={"count": 3})})
    masking = registry.build("masking", part, CONTEXT)
    given = masking.draw(torch.ones(1, 4, dtype=torch.bool), Noise(torch.zeros(1).long()))
    assert given.tolist() == [[False, False, False, True]]


def test_wrong_options_are_refused(registry):
    def built(**options):
        return registry.build("masking", Part(use="first", options=options), CONTEXT)

    with pytest.raises(RecipeError, match="acme:first: count: expected an integer, got '3'"):
        built(count="3")
    with pytest.raises(RecipeError, match="acme:first: size: unknown key; there are count"):
        built(size=3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "cannot import not_there:X: ModuleNotFoundError: No module named 'not_there'"),
        ("lost", "cannot import acme:Lost: AttributeError: module 'acme' has no attribute 'Lost'"),
        ("number", "acme:number is not callable"),
        ("wrong", "builtins:slice built a slice, which is not a dlmkit.core.masking.Masking"),
    ],
)
def test_a_target_that_is_not_what_it_says(registry, name, message):
    with pytest.raises(PluginError) as caught:
        registry.build("masking", Part(use=name), CONTEXT)
    assert str(caught.value) == f"masking acme:{name}: {message}"


def test_an_error_of_the_part_itself_says_whose_it_is(registry):
    with pytest.raises(LookupError, match="nothing here") as caught:
        registry.build("masking", Part(use="fails"), CONTEXT)
    assert caught.value.__notes__ == ["while building masking acme:fails"]


def test_components_are_sorted_by_kind_and_name():
    entries = Registry.load().components()
    names = [entry.qualified for entry in Registry.load().components("masking")]
    kinds = [entry.component.kind for entry in entries]
    assert names == sorted(names)
    assert kinds.index("schedule") < kinds.index("masking") < kinds.index("sampler")


def test_every_built_in_can_be_described():
    for entry in Registry.load(third_party=False).components():
        check("register_components", entry.component)


def test_every_built_in_loads_and_its_targets_build_something():
    registry = Registry.load(third_party=False)
    assert {p.name: p.reason for p in registry.plugins if p.state != "ok"} == {}
    for entry in registry.components():
        module, _, name = entry.component.target.partition(":")
        assert callable(getattr(__import__(module, fromlist=[name]), name))
