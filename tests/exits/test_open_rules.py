"""Rules with one number left open: which statistic it is compared with, and what it may be."""

import pytest

from dlmkit.core.context import BuildContext
from dlmkit.errors import UsageError
from dlmkit.exits.rules import OpenRule
from dlmkit.registry.lookup import Registry

REGISTRY = Registry.load(third_party=False)
BOTH = "{use: stable-and-confident, with: {threshold: tuned}}"
HELD = "{use: jeffreys, with: {threshold: tuned}}"


def opened(text):
    return OpenRule.parse(text, REGISTRY, BuildContext(length=4))


@pytest.mark.parametrize(
    ("text", "statistic", "reason"),
    [
        ("entropy", "entropy", "entropy < 0.25"),
        ("kl", "kl", "kl < 0.25"),
        ("margin", "margin", "margin >= 0.25"),
        ("level", "sigma", "sigma <= 0.25"),
        ("fraction", "fraction", "fraction >= 0.25"),
        ("switches:most=tuned", "switches", "switches <= 0.25 for 3 steps"),
        # reads switches first; its number is of the entropy
        ("stable-and-confident", "entropy", "no switches for 1 steps and entropy < 0.25"),
        (f"patience:rule={HELD}", "jeffreys", "jeffreys < 0.25 for 2 steps"),
    ],
)
def test_an_open_number_is_compared_with_what_its_config_says(text, statistic, reason):
    rule = opened(text)
    assert (rule.statistic, rule.whole) == (statistic, False)
    assert rule(0.25).reason(rule(0.25).init(1)) == reason
    assert rule(rule.example).needs


def test_the_mark_is_found_in_a_rule_of_rules():
    rule = opened(f"all:rules=[{{use: kl, with: {{threshold: 0.1}}}}, {BOTH}]")
    assert rule.statistic == "entropy"


def test_numbers_that_count_steps_are_whole():
    rule = opened("fixed")
    assert (rule.whole, rule.statistic) == (True, "step")
    assert rule(3.0).reason(()) == "step >= 3"


def test_what_is_open_has_to_be_clear():
    with pytest.raises(UsageError, match="which number is to be found"):
        opened("any:rules=[{use: fixed, with: {step: 2}}]")
