"""Lists of the command line."""

import pytest

from dlmkit.bench.cases import BenchCase, Lists, numbers, precisions, words
from dlmkit.bench.defaults import percentages, share, short
from dlmkit.errors import UsageError
from dlmkit.model import Model
from dlmkit.plugin import Part


def test_all_combinations_once_each():
    cases = Lists(["euler", "heun"], ["warped"], [8, 16], [4, 2], precision=["fp32"]).cases()
    assert len(set(cases)) == len(cases) == 8
    assert len({case.name() for case in cases}) == 8
    assert cases[0] == BenchCase("euler", "warped", 8, 4)


def test_names_tell_cases_apart_and_the_base_has_no_exit():
    case = BenchCase("euler", "warped", 8, 4, "cfg", exit="entropy", freeze="kl", precision="bf16")
    assert case.name("fixed") == "euler | warped | 8 steps | batch 4 | cfg | bf16 | fixed"
    assert case.base == BenchCase("euler", "warped", 8, 4, "cfg", precision="bf16")


@pytest.mark.parametrize("text", ["", "a,,b", "a,a"])
def test_bad_lists_are_refused(text):
    with pytest.raises(UsageError, match="--sampler"):
        words("--sampler", text)


def test_commas_inside_brackets_do_not_split():
    assert words("--exit", "any:rules=[{use: a}, {use: b}],kl") == [
        "any:rules=[{use: a}, {use: b}]",
        "kl",
    ]


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "a"])
def test_steps_are_whole_and_positive(text):
    with pytest.raises(UsageError, match="--steps"):
        numbers("--steps", text)
    assert numbers("--steps", "16, 8") == [16, 8]


def test_unknown_precisions_are_refused():
    assert precisions("--precision", "fp32,bf16+graphs") == ["fp32", "bf16+graphs"]
    with pytest.raises(UsageError, match="fp16: expected one of fp32, bf16"):
        precisions("--precision", "fp16")


def test_percentages():
    assert percentages("--given", "0,30,90") == [0, 30, 90]
    with pytest.raises(UsageError, match="0 to 99"):
        percentages("--given", "100")
    assert share("--fail-over", "5%") == pytest.approx(0.05)
    for bad in ("-1%", "x", "inf", "nan%"):
        with pytest.raises(UsageError, match="expected a percentage"):
            share("--fail-over", bad)


def test_short_forms_keep_options_that_were_chosen(toy: Model):
    assert short(toy, "grid", Part(use="samplers:karras", options={"rho": 3.0})) == "karras:rho=3.0"
    assert short(toy, "grid", Part(use="samplers:karras", options={"rho": 7.0})) == "karras"
    assert short(toy, "sampler", Part(use="samplers:euler")) == "euler"
