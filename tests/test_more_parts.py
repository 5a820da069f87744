"""Packages outside the tree together: two schedules and an exit rule of one, a sampler of another.

What they need is the public interface alone; the two-evaluation sampler is the tutorial's.
"""

from pathlib import Path

import pytest
import torch

from dlmkit.bench.rules import families
from dlmkit.cli.app import main
from dlmkit.core.context import BuildContext
from dlmkit.model import compose
from dlmkit.plugin import Part
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry
from dlmkit.testing import check_plugin

FIXTURES = Path(__file__).parent / "fixtures"
SMALL = (
    "network.with.width=16",
    "network.with.heads=2",
    "network.with.blocks=1",
    "train.steps=2",
    "train.batch_size=4",
    "train.threads=1",
)


@pytest.fixture(autouse=True)
def packages(install_folder) -> None:
    install_folder(FIXTURES / "more_parts")
    install_folder(FIXTURES / "third_party_plugin")


def model(*more: str):
    recipe = load_recipe("more:flow_grammar", [*SMALL, *more]).config
    return compose(**recipe.model_dump(mode="json", by_alias=True))


def test_the_kit_passes_them():
    outcomes = check_plugin("more")
    assert [o.message for o in outcomes if o.outcome == "failed"] == []
    passed = {(o.component, o.check) for o in outcomes if o.outcome == "passed"}
    assert {
        ("schedule/cosine", "inverse-round-trip"),
        ("schedule/rectified-flow", "monotone"),
        ("exit/plateau", "memory-survives-take"),
        ("exit/plateau", "nan-never-halts"),
        ("plugin", "recipes-resolve"),
    } <= passed
    assert main(["plugins", "check", "more"]) == 0


def test_levels_are_their_formulae():
    registry, t = Registry.load(), torch.tensor([0.25, 0.5], dtype=torch.float64)
    build = lambda name: registry.build("schedule", Part(use=name), BuildContext(length=4))  # noqa: E731
    alpha, sigma = build("more:rectified-flow").level(t)
    assert (alpha.tolist(), sigma.tolist()) == ([0.75, 0.5], [0.25, 0.5])
    alpha, sigma = build("more:cosine").level(t)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones_like(t))
    torch.testing.assert_close(sigma[0] / alpha[0], t.new_tensor(2.0**0.5 - 1.0))  # tan(pi / 8)


def test_a_plateau_by_hand():
    rule = Registry.load().build(
        "exit", Part(use="plateau", options={"steps": 2, "least": 0.1}), BuildContext(length=4)
    )
    courses = torch.tensor(
        [
            [3.0, 2.0, 2.0, 1.5, 1.45, 1.44],  # the third step's wait is forgotten at the fourth
            [3.0, 2.95, torch.nan, 2.94, 1.0, 1.0],  # what is not a number neither waits nor halts
        ]
    )
    memory, halted = rule.init(2), []
    for now in courses.unbind(dim=1):
        halt, memory = rule({"entropy": now}, memory)
        halted.append(halt.tolist())
    assert [row[0] for row in halted] == [False, False, False, False, False, True]
    assert [row[1] for row in halted] == [False, False, False, True, False, False]
    assert rule.reason(type(memory)(*(value[:1] for value in memory))).endswith("for 2 steps")


@pytest.mark.parametrize("schedule", ["more:rectified-flow", "more:cosine"])
def test_they_train_and_sample_with_each_other(schedule):
    sets = [f"schedule.use={schedule}", "sampler.use=acme:midpoint", "exit.with.steps=2"]
    trained = model(*sets, "exit.with.least=10.0")
    assert all(torch.isfinite(torch.tensor(record.loss)) for record in trained.train())
    texts = trained.sample(3, steps=6, batch_size=2)
    # nothing undercuts the first step's entropy by 10 nats: all halt two steps later
    assert {(text.steps, text.evaluations) for text in texts} == {(3, 6)}
    assert [text.halted for text in texts] == ["no lower entropy for 2 steps"] * 3
    assert [t.text for t in trained.sample(3, steps=6, batch_size=1)] == [t.text for t in texts]


def test_a_short_name_of_two_plugins_is_refused(capsys):
    assert main(["recipe", "check", "ddlm_grammar", "--set", "schedule.use=cosine"]) == 3
    assert "write 'more:cosine' or 'ssd:cosine'" in capsys.readouterr().err


def test_the_bench_tunes_the_rule_like_a_built_in():
    assert "plateau:steps=tuned" in families(model())
