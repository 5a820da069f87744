"""``dlmkit trace``, ``exit calibrate`` and ``sample --exit-certificate`` on a small model."""

import json

import pytest

from dlmkit.cli.app import main
from dlmkit.exits.certificate import Certificate
from dlmkit.exits.trace_file import load_trace
from dlmkit.model import open_model

STEPS, LENGTH, TEXTS = 6, 32, 80
SMALL = [
    "network.with.width=16",
    "network.with.heads=2",
    "network.with.blocks=1",
    "space.with.dim=8",
    "train.steps=2",
    "train.validation_rows=8",
    "exit={use: fixed, with: {step: 4}}",
    f"sample.steps={STEPS}",
    "sample.measured=2",
    "sample.count=1",
]
CERTIFIED = ["--rule", "fixed", "--tolerance", "1.0"]
"""No text differs in more than all of its tokens: this loss is 0, so every threshold passes."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "grammar"
    words = ["train", "ddlm_grammar", "--out", str(folder)]
    assert main([*words, *(word for key in SMALL for word in ("--set", key))]) == 0
    return folder


@pytest.fixture(scope="module")
def trace(model):
    """A trace of that model."""
    path = model.parent / "a.trace"
    words = ["trace", str(model), "-n", str(TEXTS), "--out", str(path), "--positions", "entropy"]
    assert main(words) == 0
    return path


@pytest.fixture(scope="module")
def certificate(trace):
    """A certificate of that trace."""
    path = trace.parent / "c.json"
    words = ["exit", "calibrate", str(trace), *CERTIFIED, "--thresholds", "3,4,5"]
    assert main([*words, "--out", str(path)]) == 0
    return path


def test_a_trace_holds_every_installed_statistic(trace, call):
    held = load_trace(trace)
    assert held.ids.shape == (TEXTS, STEPS, LENGTH)
    _, out, _ = call("components", "list", "statistic", "--json")
    names = {entry["name"] for entry in json.loads(out)}
    assert set(held.statistics) == names | {"step", "fraction", "sigma"}
    assert held.positions.keys() == {"entropy"}
    assert held.norms == {}
    assert held.about["conditions"]["sampler"]["use"] == "samplers:ancestral"


def test_a_trace_is_what_sample_writes(model, trace, call):
    _, out, _ = call("sample", model, "-n", 4, "--json", "--exit", "none")
    from dlmkit.model import load_model

    decode = load_model(model).assembly.tokenizer.decode
    assert [entry["text"] for entry in json.loads(out)] == [
        decode(ids) for ids in load_trace(trace).full[:4].tolist()
    ]


def test_the_test_bed_is_traced_and_sampled_by_name(tmp_path, call):
    out, words = tmp_path / "m.trace", ["--set", "length=8", "--steps", 4, "-n", 3]
    assert call("trace", "markov", *words, "--out", out)[0] == 0
    held = load_trace(out)
    assert held.about["reference"] == "markov"
    code, printed, _ = call("sample", "markov", *words, "--exit", "none", "--json")
    assert code == 0
    tokenizer = open_model("markov", ["length=8"]).assembly.tokenizer
    texts = [tokenizer.decode(ids.tolist()) for ids in held.ids[:, -1]]
    assert [text["text"] for text in json.loads(printed)] == texts
    code, _, err = call("trace", "ddlm_grammar", "--out", tmp_path / "g.trace")
    assert code == 2
    assert "must be trained first: run 'dlmkit train ddlm_grammar'" in err
    assert call("sample", "markov", "--weights", "raw")[0] == 2


def test_trace_options(model, tmp_path, call):
    path = tmp_path / "b.trace"
    words = ("-n", 3, "--seed", 5, "--steps", 4, "--prompt", "the badger", "--norms", "--json")
    code, out, _ = call("trace", model, "--out", path, "--sampler", "heun", *words)
    summary, held = json.loads(out), load_trace(path)
    assert code == 0
    assert (summary["texts"], summary["steps"], summary["evaluations"]) == (3, 4, 7)
    assert summary["bytes"] == path.stat().st_size
    assert held.given.sum(dim=1).tolist() == [2, 2, 2]
    assert held.norms.keys() == {"x", "x0", "score_angle"}
    assert held.about["seed"] == 5
    words = ("--steps", 4, "--prompt", "the badger", "--sampler", "heun", "--set", "seed=5")
    code, _, _ = call("trace", model, "-n", 3, "--out", tmp_path / "c.trace", *words)
    assert load_trace(tmp_path / "c.trace").ids.equal(held.ids)
    code, _, err = call("trace", model, "--out", path)
    assert (code, "exists already" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--positions", "margn"], 2, "no statistic 'margn'"),
        (["--set", "train.steps=2"], 2, "belongs to what was trained"),
        (["--set", "exit.use=fixed"], 2, "a trace holds full runs"),
        (["--set", "freeze={use: entropy}"], 2, "a trace holds full runs"),
        (["--sampler", "eulr"], 3, "did you mean 'euler'"),
        (["--prompt", "xylophone"], 2, "tokenizer does not know"),
        (["-n", "0"], 2, "greater than or equal to 1"),
    ],
)
def test_bad_words_of_trace(model, tmp_path, call, words, code, message):
    found, out, err = call("trace", model, "--out", tmp_path / "x", *words)
    assert (found, out, message in err) == (code, "", True)
    assert not (tmp_path / "x").exists()


def test_calibration_says_what_it_found(trace, call):
    code, out, _ = call(
        "exit", "calibrate", trace, *CERTIFIED, "--rule", "kl", "--json", "--epsilon", "0.1"
    )
    found = json.loads(out)
    assert code == 0
    assert (found["texts"], found["ordering_texts"], found["rules"]) == (60, 20, 2)
    assert [one["rule"] for one in found["found"]] == ["fixed", "kl"]
    first = found["found"][0]
    assert (first["threshold"], first["mean_loss"], first["saving"]) == (1.0, 0.0, STEPS)
    assert first["p_value"] == pytest.approx(0.9**60)
    assert found["chosen"] == "fixed"


def test_a_certificate_holds_what_it_must(trace, certificate):
    held = Certificate.load(certificate)
    assert held.rule == {"use": "samplers:fixed", "with": {"step": 3}}
    assert held.threshold == 3.0
    assert held.guarantee == {
        "epsilon": 0.05,
        "delta": 0.05,
        "loss": "row",
        "tolerance": 1.0,
        "rules": 1,
    }
    assert held.conditions == load_trace(trace).about["conditions"]
    assert {
        "model",
        "sampler",
        "grid",
        "guidance",
        "steps",
        "length",
        "dtype",
        "device",
        "kernel",
        "prompts",
        "versions",
    } <= held.conditions.keys()
    assert held.conditions["prompts"] == "unconditional"
    assert held.evidence["texts"] == 60
    assert held.evidence["saving"] == 2.0


def test_a_certificate_is_applied(model, certificate, call):
    code, out, err = call(
        "sample",
        model,
        "-n",
        5,
        "--seed",
        9,
        "--batch-size",
        2,
        "--json",
        "--exit-certificate",
        certificate,
    )
    assert code == 0, err
    assert {(e["steps"], e["halted"]) for e in json.loads(out)} == {(3, "step >= 3")}


@pytest.mark.parametrize(
    ("words", "differences"),
    [
        (["--steps", "7"], ["steps: given 7, expected 6"]),
        (["--prompt", "the"], ["prompts: given", "expected unconditional"]),
        (["--weights", "raw"], ["model: given"]),
        (
            ["--set", "sampler.use=heun", "--steps", "5"],
            [
                "steps: given 5, expected 6",
                "sampler.use: given samplers:heun, expected samplers:ancestral",
            ],
        ),
        (["--set", "grid.use=karras"], ["grid.use: given samplers:karras"]),
        (
            ["--set", "guidance=[{use: score-temperature, with: {temperature: 0.9}}]"],
            ["guidance.0: given {", "expected nothing"],
        ),
        (["--exit", "fixed:step=2"], ["the certificate names the exit rule"]),
        (["--freeze", "entropy:threshold=0.1"], ["freeze: given {", "expected null"]),
    ],
)
def test_a_certificate_does_not_hold_elsewhere(model, certificate, call, words, differences):
    code, out, err = call("sample", model, "--exit-certificate", certificate, *words)
    assert (code, out) == (2, "")
    for difference in differences:
        assert difference in err


def test_damaged_files(trace, certificate, tmp_path, model, call):
    broken = tmp_path / "t.trace"
    broken.write_bytes(trace.read_bytes()[:-5])
    code, _, err = call("exit", "calibrate", broken, *CERTIFIED)
    assert (code, "truncated" in err) == (6, True)
    edited = tmp_path / "c.json"
    edited.write_text(certificate.read_text().replace('"step": 3', '"step": 1'))
    code, _, err = call("sample", model, "--exit-certificate", edited)
    assert (code, "has been altered" in err) == (6, True)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--rule", "entropi"], 3, "did you mean 'entropy'"),
        (["--rule", "fixed", "--epsilon", "0"], 2, "--epsilon 0: expected a number between"),
        (["--rule", "fixed", "--delta", "1.5"], 2, "--delta 1.5: expected a number between"),
        (["--rule", "fixed", "--epsilon", "0.02"], 2, "it takes 149 even if none"),
        (["--rule", "fixed", "--rule", "kl"], 2, "60 texts are left"),
        (["--rule", "fixed", "--rule", "fixed"], 2, "the same rule is given twice"),
        (["--rule", "fixed", "--order-share", "1"], 2, "--order-share 1"),
        (["--rule", "fixed", "--thresholds", "1,x"], 2, "expected numbers between commas"),
        (["--rule", "kl", "--thresholds", "1e-12"], 2, "below the noise floor of kl"),
        (["--rule", "any:rules=[]"], 2, "Write 'tuned' in its place"),
        (["--rule", "fixed", "--tolerance", "2"], 2, "--tolerance"),
        ([], 2, "--rule"),
    ],
)
def test_bad_words_of_calibrate(trace, call, words, code, message):
    found, out, err = call("exit", "calibrate", trace, *words)
    assert (found, out, message in err) == (code, "", True), err


def test_nothing_is_certified_that_did_not_pass(trace, tmp_path, call):
    path = tmp_path / "c.json"
    code, out, err = call(
        "exit",
        "calibrate",
        trace,
        "--rule",
        "fixed",
        "--tolerance",
        "0",
        "--thresholds",
        "1,2",
        "--out",
        path,
    )
    assert code == 2
    assert "not certified" in out
    assert "no number of texts helps" in err
    assert not path.exists()
