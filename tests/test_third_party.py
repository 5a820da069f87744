"""The package of the tutorial, installed beside dlmkit: its parts are parts like any other."""

from pathlib import Path

import pytest
import torch

from dlmkit.cli.app import main
from dlmkit.recipe.assemble import assemble
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry
from dlmkit.testing import check_plugin

PACKAGE = Path(__file__).parent / "fixtures" / "third_party_plugin"


@pytest.fixture
def acme(install_folder) -> None:
    install_folder(PACKAGE)


@pytest.mark.usefixtures("acme")
def test_it_is_listed_with_what_it_provides(capsys):
    (info,) = [plugin for plugin in Registry.load().plugins if plugin.name == "acme"]
    assert (info.distribution, info.version, info.state) == ("dlmkit-acme", "0.3.0", "ok")
    assert info.provides == ("sampler/midpoint", "schedule/power", "recipe/acme_small")
    assert main(["components", "show", "schedule/power"]) == 0
    assert "from dlmkit-acme 0.3.0" in capsys.readouterr().out


@pytest.mark.usefixtures("acme")
def test_it_passes_the_kit():
    outcomes = check_plugin("acme")
    assert [o.message for o in outcomes if o.outcome == "failed"] == []
    assert ("sampler/midpoint", "order-as-claimed", "passed") in [
        (o.component, o.check, o.outcome) for o in outcomes
    ]


@pytest.mark.usefixtures("acme")
def test_its_parts_build_in_a_shipped_recipe():
    registry = Registry.load()
    sets = ["network.with.blocks=1", "schedule.use=acme:power", "sampler.use=midpoint"]
    config = load_recipe("ddlm_grammar", sets, registry).config
    assert (config.schedule.use, config.sampler.use) == ("acme:power", "acme:midpoint")
    schedule = assemble(config, registry).objective.schedule
    ends = schedule.level(torch.tensor([0.0, 1.0], dtype=torch.float64)).sigma
    torch.testing.assert_close(ends, torch.tensor([0.5, 20.0], dtype=torch.float64))


@pytest.mark.usefixtures("acme")
def test_it_changes_nothing_of_other_recipes():
    before = load_recipe("ddlm_grammar", registry=Registry.load(third_party=False))
    assert load_recipe("ddlm_grammar", registry=Registry.load()).text() == before.text()


@pytest.mark.usefixtures("acme")
def test_without_it_its_recipe_says_what_is_missing(capsys, monkeypatch):
    monkeypatch.setenv("DLMKIT_PLUGINS", "other")
    assert main(["recipe", "check", "acme:acme_small"]) == 4
    message = "plugin 'acme' (dlmkit-acme 0.3.0) is blocked: DLMKIT_PLUGINS does not list it"
    assert message in capsys.readouterr().err
