"""Trained models that plugins ship: listed, found by name, and packed in a wheel."""

import json
import subprocess
import sys
import textwrap
import zipfile

import pytest
import torch

import dlmkit
from dlmkit import hookimpl
from dlmkit.bench.parts import default_model
from dlmkit.cli.app import main
from dlmkit.errors import PluginError, RecipeError
from dlmkit.model import Model, open_model
from dlmkit.plugin import ShippedModel
from dlmkit.recipe.assemble import assemble
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry
from dlmkit.training.checkpoint import publish
from dlmkit.training.loop import Learner
from dlmkit.training.parallel import Single
from dlmkit.training.state import capture, write_checkpoint
from dlmkit_ddlm import plugin as ddlm

PLUGIN = """
    from pathlib import Path
    from dlmkit import hookimpl
    from dlmkit.plugin import ShippedModel

    @hookimpl
    def register_models():
        return [ShippedModel("toy", "a toy", Path({path!r}))]
"""
SMALL = ["network.with.width=16", "network.with.heads=2", "network.with.blocks=1"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """An untrained model as an exported folder."""
    registry = Registry.load(third_party=False)
    resolved = load_recipe("ddlm_grammar", [*SMALL, "sample.steps=3"], registry)
    parts = assemble(resolved.config, registry)
    learner = Learner.begin(parts.objective, resolved.config.train, Single(torch.device("cpu")))
    folder = tmp_path_factory.mktemp("toy")

    def write(at):
        captured = capture(learner)
        write_checkpoint(at, captured, learner, resolved.text(), parts.tokenizer, {})

    checkpoint = publish(folder / "checkpoints", 0, write)
    assert main(["export", str(checkpoint), str(folder / "out"), "--name", "toy"]) == 0
    return folder / "out"


@pytest.fixture
def ship(install, toy):
    """Installs a package whose plugin ships the model."""

    def call(distribution, plugin, extra=""):
        source = textwrap.dedent(PLUGIN.format(path=str(toy))) + extra
        install(distribution, source, plugin=plugin)

    return call


def test_it_is_listed_and_found_by_name(ship, toy, capsys):
    ship("dlmkit-acme", "acme")
    assert main(["models", "list", "--json"]) == 0
    (entry,) = [e for e in json.loads(capsys.readouterr().out) if e["name"] == "acme:toy"]
    package = "dlmkit-acme 1.0"
    assert entry == {"name": "acme:toy", "summary": "a toy", "package": package, "path": str(toy)}
    assert main(["models", "list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["acme:toy", "dlmkit-acme", "1.0", "a", "toy"] in lines
    for name in ("toy", "acme:toy"):
        model = dlmkit.load(name)
        assert isinstance(model, Model)
        assert model.folder == toy
    assert main(["sample", "toy", "-n", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_the_default_of_the_bench_is_a_model_of_dlmkits_own(ship, toy, monkeypatch):
    before = default_model()
    ship("dlmkit-acme", "acme")
    assert default_model() == before  # what somebody else ships changes nothing
    shipped = ShippedModel("a-toy", "a toy", toy)
    monkeypatch.setattr(ddlm, "register_models", hookimpl(lambda: [shipped]), raising=False)
    assert default_model() == "ddlm:a-toy"
    assert open_model(default_model()).config.length == 32


def test_a_name_of_two_plugins(ship):
    ship("dlmkit-acme", "acme")
    ship("dlmkit-other", "other")
    with pytest.raises(RecipeError, match="write 'acme:toy' or 'other:toy'"):
        dlmkit.load("toy")
    assert dlmkit.load("other:toy").config.length == 32


def test_a_broken_plugin_and_one_that_is_blocked(ship, monkeypatch):
    ship("dlmkit-acme", "acme", "@hookimpl\ndef register_recipes():\n    return ['x']\n")
    for name in ("toy", "acme:toy"):
        with pytest.raises(PluginError, match=r"'acme' \(dlmkit-acme 1.0\) failed to load: .*'x'"):
            dlmkit.load(name)
    monkeypatch.setenv("DLMKIT_PLUGINS", "other")
    with pytest.raises(PluginError, match=r"'acme' .* is blocked"):
        dlmkit.load("acme:toy")


def test_names_that_nobody_provides(ship, capsys):
    ship("dlmkit-acme", "acme")
    with pytest.raises(PluginError, match="no plugin named 'acmee' is installed, did you mean"):
        dlmkit.load("acmee:toy")
    assert main(["sample", "toi"]) == 3
    err = capsys.readouterr().err
    assert "there is no model 'toi'" in err
    assert "shipped models are " in err
    assert "acme:toy" in err


PYPROJECT = """
[build-system]
requires = ["hatchling>=1.25"]
build-backend = "hatchling.build"

[project]
name = "dlmkit-toy"
version = "1.0"
requires-python = ">=3.11"
dependencies = ["dlmkit"]

[project.entry-points.dlmkit]
toys = "dlmkit_toy"

[tool.hatch.build.targets.wheel]
packages = ["dlmkit_toy"]

[tool.hatch.build.targets.wheel.force-include]
"models/toy" = "dlmkit_toy/models/toy"
"""

PACKAGED = '''
"""A model in a package."""

from pathlib import Path

from dlmkit import hookimpl
from dlmkit.plugin import ShippedModel

api = 2


@hookimpl
def register_models():
    return [ShippedModel("toy", "a toy", Path(__file__).parent / "models" / "toy")]
'''


def test_a_wheel_holds_the_folder_and_the_model_is_sampled_from_it(toy, tmp_path, site, capsys):
    package = tmp_path / "package"
    (package / "dlmkit_toy").mkdir(parents=True)
    (package / "pyproject.toml").write_text(PYPROJECT)
    (package / "dlmkit_toy" / "__init__.py").write_text(PACKAGED)
    (package / "models").mkdir()
    toy_copy = package / "models" / "toy"
    toy_copy.mkdir()
    for path in toy.iterdir():
        (toy_copy / path.name).write_bytes(path.read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path)]
    done = subprocess.run([*build, str(package)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "dlmkit_toy-1.0-py3-none-any.whl") as wheel:
        wheel.extractall(site)
    assert dlmkit.load("toys:toy").folder == site / "dlmkit_toy" / "models" / "toy"
    assert main(["sample", "toys:toy", "-n", "1", "--json"]) == 0
    (text,) = json.loads(capsys.readouterr().out)
    assert text["text"] == str(dlmkit.load(toy).sample(1)[0])
    assert main(["plugins", "check", "toys"]) == 0


@pytest.mark.parametrize("command", ["sample", "analyze", "export"])
def test_a_recipe_is_no_model_before_it_is_trained(command, tmp_path, capsys):
    words = [str(tmp_path / "out")] if command == "export" else []
    assert main([command, "ddlm_grammar", *words]) == 2
    said = capsys.readouterr().err
    assert "ddlm_grammar is a recipe, and " in said
    assert "trained" in said
    assert "run 'dlmkit train ddlm_grammar' and name the run's folder" in said
