"""Caches beside none: shares by hand, a run on a made-up model, and what is refused."""

import json

import pytest
import torch

import dlmkit
from dlmkit.bench.caches import CachePlan, CacheRow, _same, _sentence, lines, run
from dlmkit.cli.app import main


@pytest.fixture(scope="module")
def model():
    made = dlmkit.compose(
        length=16,
        data="grammar:grammar",
        schedule="mdlm:log-linear",
        space={"use": "mdlm:tokens", "with": {"dim": 16}},
        network={"use": "cdcd:transformer", "with": {"width": 16, "heads": 2, "level": False}},
        masking="cdcd:none",
        objective="mdlm:nelbo",
        sampler="mdlm:unmasking",
        grid="samplers:linear",
        train={"steps": 1},
    )
    torch.nn.init.normal_(made.assembly.network.query.weight)
    return made


def row(cache, batch, speed, tokens=1.0):
    return CacheRow(cache, batch, 1.0, speed, (speed,), speed, tokens, float(tokens == 1.0), 8.0)


def test_a_sentence_says_where_a_cache_loses():
    rows = [row("prefix, approximate", 1, 1.5, 0.9), row("prefix, approximate", 8, 0.8, 0.95)]
    assert _sentence(rows) == (
        "prefix, approximate: speed by batch 1.50 at 1, 0.80 at 8; at least 90.0 % of the tokens "
        "are as without; it loses at batch 8"
    )
    assert _sentence([row("exact", 1, 3.0)]) == (
        "exact: speed by batch 3.00 at 1; texts are as without"
    )
    assert _same((1, 2, 3, 4), (1, 2, 9)) == 0.5


def test_every_cache_that_can_be_had_is_measured(model):
    found = run(model, "made up", CachePlan(batches=(1, 3), steps=8, rounds=1))
    caches = ["none", "prefix, approximate", "dual, approximate"]
    caches.append("delayed every 8 steps, approximate")
    assert [row["cache"] for row in found["rows"]] == caches * 2
    assert set(found["refused"]) == {"exact"}
    plain = [row for row in found["rows"] if row["cache"] == "none"]
    assert all(row["tokens"] == row["texts"] == row["speed"] == 1.0 for row in plain)
    assert all(0.0 <= row["tokens"] <= 1.0 for row in found["rows"])
    assert found["protocol"]["sampler"]["use"] == "masked:decoder"
    said = "\n".join(lines(found))
    assert "exact: none here" in said
    assert "16 tokens, 50 % given, 8 steps" in said
    json.dumps(found)


def test_what_it_cannot_compare_is_refused(model, capsys):
    assert main(["bench", "sampler", "markov", "--cache"]) == 2
    assert "--cache is of masked models" in capsys.readouterr().err
    assert main(["bench", "sampler", "markov_masked", "--cache"]) == 2
    assert "no cache can be had" in capsys.readouterr().err
    assert main(["bench", "sampler", "markov_masked", "--cache", "--exit", "entropy"]) == 2
    assert "--exit: the option does nothing with --cache" in capsys.readouterr().err
    assert main(["bench", "sampler", "markov_masked", "--cache", "--steps", "2,4"]) == 2
    assert "expected one number with --cache" in capsys.readouterr().err
