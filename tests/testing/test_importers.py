"""The kit's checks of importers: built-in families pass, and each seeded bug is found."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dlmkit.plugin import Importer
from dlmkit.registry.loading import Loaded
from dlmkit.registry.lookup import Registry
from dlmkit.testing.importers import Imported
from dlmkit.testing.suite import IMPORTER, CheckCase, all_checks
from dlmkit_released.llada import Llada

REGISTRY = Registry.load(third_party=False)
GOLDEN = Path(__file__).parent.parent / "golden"
BUILT_IN = ("llada", "dream", "sdar", "a2d", "mdlm", "bd3lm")


def outcomes(importer, registry=REGISTRY, plugin="released", target="dlmkit_released.plugin"):
    """What each check comes to, by its name, with the message."""
    loaded = Loaded(plugin, "tests", "0", target, importers=(importer,))
    subject = Imported(registry, loaded, importer)
    done = (CheckCase("importer", c, subject).run() for c in all_checks()[IMPORTER])
    return {outcome.check: (outcome.outcome, outcome.message) for outcome in done}


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_family_passes(name):
    found = outcomes(REGISTRY.importers()[f"released:{name}"])
    failed = [f"{check}: {said}" for check, (state, said) in found.items() if state == "failed"]
    assert not failed, failed[0]
    assert found["golden-cases-agree"][0] == found["every-tensor-is-used"][0] == "passed"


def test_without_a_golden_folder_nothing_is_checked_but_what_needs_none():
    found = outcomes(replace(REGISTRY.importers()["released:llada"], golden=None))
    passed = {check for check, (state, _) in found.items() if state == "passed"}
    assert passed == {"refuses-others"}
    assert {state for state, _ in found.values()} == {"passed", "skipped"}


class Careless(Llada):
    """Reads a key without looking."""

    def convert(self, config, tokens):
        config["n_layers"] + 1
        return super().convert(config, tokens)


class Causal(Llada):
    """Attends as Llama was made to."""

    def convert(self, config, tokens):
        conversion = super().convert(config, tokens)
        network = conversion.recipe["network"]
        options = {**network["with"], "attention": "causal"}
        recipe = {**conversion.recipe, "network": {**network, "with": options}}
        return replace(conversion, recipe=recipe)


class Forgetful(Llada):
    """Answers without the last block's feed-forward."""

    def answers(self, objective, case):
        last = objective.network.model.model.layers[-1].mlp
        whole, last.forward = last.forward, torch.zeros_like
        try:
            return super().answers(objective, case)
        finally:
            last.forward = whole


class Chancy(Llada):
    """Adds noise of its own to what it answers."""

    def answers(self, objective, case):
        noise = 1e-6 * torch.rand(1)
        return {name: value + noise for name, value in super().answers(objective, case).items()}


def known(config):
    return config.get("model_type") == "llada"


def hungry(config):
    return "vocab_size" in config


def picky(config):
    return config["model_type"] == "llada"


def nobody(config):
    return False


MUTANTS = [
    ("recognises-its-own", nobody, "Llada"),
    ("refuses-others", hungry, "Llada"),
    ("refuses-others", picky, "Llada"),
    ("reads-its-config-strictly", known, "Careless"),
    ("golden-cases-agree", known, "Causal"),
    ("attends-as-declared", known, "Causal"),
    ("every-tensor-is-used", known, "Forgetful"),
    ("every-parameter-is-filled", known, "Chancy"),
]


@pytest.mark.parametrize(
    ("check", "recognises", "family"), MUTANTS, ids=[f"{c}-{r.__name__}-{f}" for c, r, f in MUTANTS]
)
def test_a_seeded_bug_is_found_by_its_check(check, recognises, family, monkeypatch):
    importer = Importer("mine", "for tests", recognises, f"mine:{family}", golden=GOLDEN / "llada")
    loaded = Loaded("mine", "tests", "0", "json", importers=(importer,))
    others = [replace(p, importers=()) for p in REGISTRY.loaded]
    monkeypatch.setattr(
        "dlmkit.released.family.import_target", lambda target, what: globals()[family]
    )
    found = outcomes(importer, replace(REGISTRY, loaded=(*others, loaded)), "mine", "json")
    assert found[check][0] == "failed", found


def test_recognising_that_imports_torch_is_found(tmp_path, monkeypatch):
    (tmp_path / "weighty.py").write_text(
        "from dlmkit.plugin import Importer\n"
        "def look(config):\n    import torch\n    return False\n"
        "def register_importers():\n    return [Importer('weighty', 's', look, 'weighty:look')]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importer = Importer("weighty", "s", known, "weighty:look", golden=GOLDEN / "llada")
    found = outcomes(importer, REGISTRY, "weighty", "weighty")
    assert found["looks-without-torch"][0] == "failed"
    assert "recognising a config imports torch" in found["looks-without-torch"][1]


def test_every_check_of_importers_has_a_seeded_bug():
    names = {check.name for check in all_checks()[IMPORTER]}
    assert names == {check for check, *_ in MUTANTS} | {"looks-without-torch"}
