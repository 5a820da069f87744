"""The reference page and the matrix of what goes together."""

from pathlib import Path

import pytest

from dlmkit.cli.reference import reference
from dlmkit.errors import RecipeError
from dlmkit.plugin import KINDS, Hooks
from dlmkit.recipe.load import resolve_text
from dlmkit.registry.compatibility import conflicts
from dlmkit.registry.lookup import Registry

PAGE = Path(__file__).parent.parent / "plugins" / "REFERENCE.md"


def test_the_page_is_up_to_date():
    found = reference(Registry.load(third_party=False))
    assert PAGE.read_text() == found, "run: dlmkit components reference > plugins/REFERENCE.md"


def test_no_two_parts_of_ours_share_a_short_name():
    """A recipe may leave out the plugin's name: a new part must not take that from it."""
    registry = Registry.load(third_party=False)
    for kind in KINDS:
        names = [entry.component.name for entry in registry.components(kind)]
        assert len(names) == len(set(names)), kind


def test_it_names_everything():
    text = PAGE.read_text()
    for hook in (name for name in vars(Hooks) if name.startswith("register_")):
        assert f"| `{hook}()` |" in text
    for kind in KINDS:
        assert f"\n## {kind}\n" in text
    for entry in Registry.load(third_party=False).components():
        assert f"### {entry.component.kind} `{entry.qualified}`" in text


TOKENS = """
from dlmkit import Component, Config, hookimpl

class Options(Config):
    "No options."

@hookimpl
def register_components():
    return [
        Component("space", "tokens", "ids and a mask", Options, "a:B", frozenset({"mask-state"})),
        Component("sampler", "unmask", "settles tokens", Options, "a:B",
                  requires=frozenset({"mask-state"})),
        Component("guidance", "push", "pushes", Options, "a:B",
                  requires=frozenset({"conditioning-dropout"})),
    ]
"""


def test_pairs_by_declared_capabilities(install):
    install("acme", TOKENS)
    registry = Registry.load()

    def between(kind, name, space):
        return conflicts(registry.find(kind, name), registry.find("space", space), registry)

    assert between("sampler", "acme:unmask", "acme:tokens") == []
    assert between("sampler", "acme:unmask", "cdcd:normalised") == [
        "acme:unmask requires 'mask-state'"
    ]
    assert between("sampler", "samplers:euler", "acme:tokens") == [
        "samplers:euler requires 'gaussian'"
    ]
    assert between("guidance", "acme:push", "acme:tokens") == []  # an objective provides it
    page = reference(registry)
    heads, cells = (
        line.split(" | ")
        for line in page.splitlines()
        if line.startswith(("| part | `acme:tokens`", "| sampler `samplers:euler` |"))
    )
    verdicts = dict(zip(heads, cells, strict=True))
    assert verdicts["| part"] == "| sampler `samplers:euler`"
    assert verdicts["`acme:tokens`"] == "samplers:euler requires 'gaussian'"
    assert verdicts["`cdcd:normalised`"] == "yes"


def test_an_impossible_pair_is_refused_with_the_reason(install):
    install("acme", TOKENS)
    registry = Registry.load()
    text = "extends: ddlm_grammar\nspace: {use: acme:tokens}\nsampler: {use: euler}\n"
    with pytest.raises(RecipeError) as caught:
        resolve_text(text, "here.yaml", (), registry)
    assert (
        "here.yaml:3:10: sampler: sampler samplers:euler requires 'gaussian', which no other "
        "part of this recipe provides" in str(caught.value)
    )
