"""The recipes of `ddlm`: what is stated of the published models, and one change an ablation."""

from pathlib import Path

import pytest

from dlmkit.documents import differences
from dlmkit.recipe.load import load_recipe
from dlmkit.recipe.shelf import folder
from dlmkit.registry.lookup import Registry

ABLATIONS = sorted(path.relative_to(folder()) for path in folder().glob("ablations/*/*.yaml"))
VARIANTS = [p for p in ABLATIONS if p.stem != "base" and p.parent.name != "words"]
WORDS = [p for p in ABLATIONS if p.stem != "base" and p.parent.name == "words"]


@pytest.fixture(scope="module")
def registry():
    return Registry.load()


def tree(name: str | Path, registry, *overrides):
    config = load_recipe(str(folder() / name), overrides, registry).config
    return config.model_dump(mode="json", by_alias=True)


def test_both_texts_have_the_same_ablations():
    names = {
        text: {p.stem for p in ABLATIONS if p.parent.name == text} for text in ("grammar", "kjv")
    }
    assert len(names["grammar"]) == 10
    assert names["kjv"] - names["grammar"] == {"embedding_init_001", "query_bias_off"}
    assert names["grammar"] < names["kjv"]


@pytest.mark.parametrize("path", VARIANTS, ids=str)
def test_an_ablation_changes_one_thing_of_its_base(path, registry):
    base = tree(path.with_name("base.yaml"), registry)
    changed = list(differences(base, tree(path, registry)))
    kinds = {difference.path[0] for difference in changed} - {"summary"}
    assert len(kinds) == 1
    if not path.stem.startswith(("warp", "mask")):  # another part has other options
        assert len(changed) == 2


SHAPES = ("network", "batch", "length", "mask", "counts_off")
"""What changes several numbers together: so that tokens or products stay as many, or because a
part's options go with it."""


@pytest.mark.parametrize("path", WORDS, ids=str)
def test_an_ablation_in_words_changes_one_thing_and_sees_as_many_tokens(path, registry):
    base, variant = tree(path.with_name("base.yaml"), registry), tree(path, registry)
    changed = {change.path[0] for change in differences(base, variant)} - {"summary"}
    assert len(changed) == 1 + path.stem.startswith("length")
    if not path.stem.startswith(SHAPES):
        assert len([*differences(base, variant)]) == 2
    tokens = [t["length"] * t["train"]["batch_size"] * t["train"]["steps"] for t in (base, variant)]
    assert tokens[0] == tokens[1] == 2_304_000


@pytest.mark.parametrize("name", ["ddlm_c4.yaml", "ddlm_c4_untied.yaml"])
def test_the_c4_recipe_has_the_published_shape(name, registry):
    recipe = tree(name, registry, "train.steps=30")
    assert recipe["length"] == 64
    assert recipe["data"]["use"] == "text:c4"
    assert recipe["data"]["with"]["tokenizer"]["size"] == 32_000
    assert recipe["space"]["with"]["dim"] == 256
    network = recipe["network"]["with"]
    assert (network["blocks"], network["width"]) == (8, 1024)
    untied = recipe["space"]["with"]["head"] == "untied"
    assert untied is ("untied" in name)
    assert recipe["space"]["with"]["head_width"] == (network["width"] if untied else None)
