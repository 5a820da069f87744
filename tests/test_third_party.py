"""A whole package of somebody else, installed beside dlmkit: its parts are parts like any other."""

import shutil
import tomllib
from pathlib import Path

import pytest
import torch

from dlmkit.cli.app import main
from dlmkit.recipe.assemble import assemble
from dlmkit.recipe.load import load_recipe
from dlmkit.registry import Registry

PACKAGE = Path(__file__).parent / "fixtures" / "third_party_plugin"


@pytest.fixture
def acme(site) -> None:
    """Installs the package as its own pyproject.toml says."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    shutil.copytree(PACKAGE / "acme_schedules", site / "acme_schedules")
    info = site / f"acme_schedules-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    points = "".join(f"{k} = {v}\n" for k, v in project["entry-points"]["dlmkit"].items())
    (info / "entry_points.txt").write_text(f"[dlmkit]\n{points}")


@pytest.mark.usefixtures("acme")
def test_it_is_listed_with_what_it_provides(capsys):
    (info,) = [plugin for plugin in Registry.load().plugins if plugin.name == "acme"]
    assert (info.distribution, info.version, info.state) == ("acme-schedules", "0.3.0", "ok")
    assert info.provides == ("schedule/power", "recipe/acme_grammar")
    assert main(["components", "show", "schedule/power"]) == 0
    assert "from acme-schedules 0.3.0" in capsys.readouterr().out


@pytest.mark.usefixtures("acme")
def test_its_recipe_extends_a_shipped_one_and_builds():
    registry = Registry.load()
    config = load_recipe("acme_grammar", ["network.with.blocks=1"], registry).config
    assert config.schedule.use == "acme:power"
    assert config.network.use == "cdcd:transformer"
    schedule = assemble(config, registry).objective.schedule
    t = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)
    torch.testing.assert_close(schedule.inverse(schedule.level(t)), t)
    ends = schedule.level(torch.tensor([0.0, 1.0], dtype=torch.float64)).sigma
    torch.testing.assert_close(ends, torch.tensor([0.4, 50.0], dtype=torch.float64))


@pytest.mark.usefixtures("acme")
def test_it_changes_nothing_of_other_recipes():
    before = load_recipe("ddlm_grammar", registry=Registry.load(third_party=False))
    assert load_recipe("ddlm_grammar", registry=Registry.load()).text() == before.text()


@pytest.mark.usefixtures("acme")
def test_without_it_its_recipe_says_what_is_missing(capsys, monkeypatch):
    monkeypatch.setenv("DLMKIT_PLUGINS", "other")
    assert main(["recipe", "check", "acme:acme_grammar"]) == 4
    message = "plugin 'acme' (acme-schedules 0.3.0) is blocked: DLMKIT_PLUGINS does not list it"
    assert message in capsys.readouterr().err
