"""Quotas with a promise: what is certified holds, and what cannot be is refused."""

import json

import pytest

from dlmkit.cli.app import main
from dlmkit.errors import UsageError
from dlmkit.exits.calibrate import Promise
from dlmkit.exits.quota import OpenQuota, calibrate_quota, sampler
from dlmkit.model import Model, Run, open_model
from dlmkit.plugin import Part
from dlmkit.sampling.requests import Request, unconditional

SMALL = ("length=10", "data.with.tokens=6", "data.with.successors=2")
ORDER = Part(use="masked:confidence")


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model("markov_masked", SMALL)


def prompts(model: Model, count: int) -> list[Request]:
    rows = model.data.validation(count).ids.tolist()
    return [Request.prompt(i, row[:3], 10) for i, row in enumerate(rows)]


def found(model: Model, thresholds: list[float], **more: float):
    promise = Promise(epsilon=0.1, delta=0.1, **more)
    return calibrate_quota(
        model,
        prompts(model, 80),
        OpenQuota("masked:threshold", "threshold", ORDER),
        thresholds,
        promise,
        Run(batch_size=80),
    )


def test_what_is_certified_holds_on_other_texts(model: Model):
    one = found(model, [0.05, 0.3, 0.6, 0.9])
    assert one.threshold is not None
    assert one.p_value <= 0.1
    assert one.mean_loss <= 0.1
    assert one.tested.saving > 1.0
    rows = model.data.validation(200).ids.tolist()[80:]
    requests = [Request.prompt(i, row[:3], 10) for i, row in enumerate(rows)]
    quota = Part(use="masked:threshold", options={"threshold": one.threshold})
    single = Part(use="masked:tokens", options={"tokens": 1})
    texts = []
    for part in (quota, single):
        words = json.dumps(sampler(ORDER, part).model_dump(mode="json", by_alias=True))
        other = model.with_(f"sampler={words}")
        texts.append([s.ids for s in other.run(requests, Run(steps=7, batch_size=120))])
    assert sum(a != b for a, b in zip(*texts, strict=True)) / len(rows) < 0.2


def test_a_reckless_threshold_is_not_certified():
    one = found(open_model("markov_masked", (*SMALL, "data.with.tokens=16")), [1e-6])
    assert one.threshold is None
    assert one.mean_loss > 0.1


def test_what_cannot_be_compared_is_refused(model: Model):
    quota = OpenQuota("masked:threshold", "threshold", ORDER)
    arguments = (quota, [0.5], Promise(), Run())
    with pytest.raises(UsageError, match="the likeliest text is the same for all"):
        calibrate_quota(model, unconditional(80, 10), *arguments)
    with pytest.raises(UsageError, match="record more texts"):
        calibrate_quota(model, prompts(model, 20), *arguments)
    registry = model.assembly.registry
    assert OpenQuota.of(registry, "factor", "confidence").knob == "factor"
    with pytest.raises(UsageError, match="has no number to find"):
        OpenQuota.of(registry, "first-hitting", "confidence")
    with pytest.raises(UsageError, match="masks no tokens"):
        calibrate_quota(open_model("markov"), prompts(model, 8), *arguments)


def test_a_certificate_is_applied_where_it_holds(tmp_path, capsys):
    out, small = tmp_path / "quota.json", [w for o in SMALL for w in ("--set", o)]
    words = ["--thresholds", "0.3,0.9", "--epsilon", "0.7", "--delta", "0.2", "--out", str(out)]
    assert main(["exit", "quota", "markov_masked", "-n", "60", *words]) == 0
    sample = ["sample", "markov_masked", "-n", "2", "--exit-certificate", str(out), "--json"]
    capsys.readouterr()
    assert main([*sample, "--prompt", "w00 w01"]) == 0, capsys.readouterr().err
    content = json.loads(capsys.readouterr().out)
    assert len(content) == 2
    assert main(sample) == 2
    assert "prompts: given unconditional, expected beginnings of texts" in capsys.readouterr().err
    assert main([*sample, "--prompt", "w00 w01", "--sampler", "mdlm:unmasking"]) == 2
    assert "the certificate names the sampler" in capsys.readouterr().err
    assert main([*sample, "--prompt", "w00 w01", *small]) == 2


def test_the_command(capsys):
    words = ["exit", "quota", "markov_masked", "-n", "90", "--thresholds", "0.3,0.9"]
    assert main([*words, "--epsilon", "0.2", "--json"]) in (0, 2)
    content = json.loads(capsys.readouterr().out)
    assert content["rule"] == "masked:threshold"
    assert main(["exit", "quota", "markov_masked", "--thresholds", "a"]) == 2
    assert main(["exit", "quota", "markov_masked", "--thresholds", "0.5,2"]) == 2
    assert "--thresholds 2: " in capsys.readouterr().err
