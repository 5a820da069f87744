"""``dlmkit view`` on a trace of a small model, and on traces that cannot be viewed."""

import json
import re

import pytest

from dlmkit.cli.app import main
from dlmkit.exits.trace_file import load_trace

SMALL = [
    "network.with.width=16",
    "network.with.heads=2",
    "network.with.blocks=1",
    "space.with.dim=8",
    "train.steps=2",
    "train.checkpoint_every=1",
    "train.validation_rows=8",
    "sample.steps=5",
    "sample.measured=2",
    "sample.count=1",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run of two steps, with a checkpoint of each."""
    folder = tmp_path_factory.mktemp("runs") / "grammar"
    words = ["train", "ddlm_grammar", "--out", str(folder)]
    assert main([*words, *(word for key in SMALL for word in ("--set", key))]) == 0
    return folder


@pytest.fixture(scope="module")
def trace(model):
    path = model.parent / "a.trace"
    words = ["trace", str(model), "-n", "3", "--out", str(path), "--norms"]
    assert main([*words, "--positions", "entropy", "--prompt", "the badger found"]) == 0
    return path


def test_a_line_a_step(trace, call):
    code, out, err = call("view", trace, "--row", 2, "--exit", "fixed:step=3")
    lines = out.splitlines()
    assert (code, err, len(lines)) == (0, "", 6)
    for step, line in enumerate(lines[:5]):
        assert re.match(rf"{step + 1}  entropy \d\.\d{{3}}   the badger found ", line)
        assert ("[fixed:step=3]" in line) == (step == 2)
    assert lines[5] == "fixed:step=3 halts it after step 3"


def test_the_trace_holds_what_is_shown(trace, call, model):
    recorded = load_trace(trace)
    assert recorded.norms.keys() == {"x", "x0", "score_angle"}
    text = "".join(recorded.about["tokens"][str(i)] for i in recorded.full[1].tolist())
    options = ["-n", 3, "--prompt", "the badger found", "--json"]
    sampled = json.loads(call("sample", model, *options)[1])
    assert text.strip() == sampled[1]["text"]


def test_a_page(trace, call, tmp_path):
    html = tmp_path / "a.html"
    code, out, err = call("view", trace, "--html", html, "--speed", 4)
    assert (code, out, err) == (0, "", f"wrote {html}")
    assert html.read_text().startswith("<!doctype html>")
    code, _, err = call("view", trace, "--html", html)
    assert (code, "exists already" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--row", "7"], 2, "--row 7: this trace holds the texts 0 to 2"),
        (["--by", "margin"], 2, "holds by position entropy, but not margin"),
        (["--live"], 2, "error: --live: there is no such option any more: --html FILE writes"),
        (["--gif", "a.gif"], 2, "error: --gif: there is no such option any more: --html FILE"),
        (["--dark"], 2, "error: --dark: there is no such option any more: --html FILE"),
        (["--speed", "0"], 2, "--speed 0: expected steps per second"),
        (["--exit", "nobody:threshold=1"], 3, "nobody"),
        (["--exit", "entropy"], 3, "--exit entropy: exit.with.threshold: is missing"),
        (["--exit", "entropy:threshold=x"], 3, "--exit entropy:threshold=x"),
        (["--html", "/nowhere/a.html"], 2, "there is no folder /nowhere"),
    ],
)
def test_bad_words(trace, call, words, code, message):
    given, out, err = call("view", trace, *words)
    assert (given, out) == (code, "")
    assert message in err


def test_a_trace_without_positions_says_how_to_record_them(model, call, tmp_path):
    plain = tmp_path / "plain.trace"
    assert call("trace", model, "-n", 2, "--out", plain)[0] == 0
    code, _, err = call("view", plain)
    assert code == 2
    assert "'dlmkit trace MODEL --out FILE --positions entropy'" in err
    code, _, err = call("view", tmp_path / "none.trace")
    assert (code, "there is no trace" in err) == (2, True)


def analysed(call, model, *words):
    code, out, err = call("analyze", model, "-n", 4, "--scales", "0,1", *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_an_analysis_of_a_run(model, call, tmp_path):
    folder = tmp_path / "out"
    found = analysed(call, model, "--out", folder)
    assert [entry["step"] for entry in found["checkpoints"]] == [1, 2]
    for entry in found["checkpoints"]:
        assert len(entry["levels"]) == 12
        assert entry["trajectory"]["curves"].keys() >= {"switches", "kl", "norm_x", "score_angle"}
        assert [one["scale"] for one in entry["noise_scale"]] == [0.0, 1.0]
        assert entry["noise_scale"][0]["quality"].keys() >= {"valid", "correct"}
        assert entry["left_out"] == {}
    assert json.loads((folder / "analysis.json").read_text()) == found
    pictures = {path.stem for path in folder.glob("*.png")}
    assert len(pictures) == 30
    assert {"training-light", "score-angle-dark", "noise-scale-light"} <= pictures
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 30
    assert not re.search(r"https?:", page)
    code, _, err = call("analyze", model, "--out", folder)
    assert (code, "exists already" in err) == (2, True)


def test_an_analysis_is_of_the_recorded_run(model, trace, call, tmp_path):
    free = tmp_path / "free.trace"
    assert call("trace", model, "-n", 4, "--seed", 5, "--norms", "--out", free)[0] == 0
    recorded = load_trace(free)
    words = ["--checkpoints", "last", "--seed", 5, "--no-data", "--scales", "none"]
    found = analysed(call, model, *words)
    (entry,) = found["checkpoints"]
    curves = entry["trajectory"]["curves"]
    for name in ("entropy", "margin"):
        expected = recorded.statistics[name].double().mean(dim=0).tolist()
        assert curves[name]["mean"] == pytest.approx(expected, rel=1e-4)
    expected = recorded.norms["score_angle"][:, 1:].double().mean(dim=0).tolist()
    assert curves["score_angle"]["mean"][1:] == pytest.approx(expected, rel=1e-3)
    assert entry["levels"] is entry["noise_scale"] is None
    assert entry["left_out"]["levels"] == "left out by --no-data"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--checkpoints", "some"], 2, "--checkpoints some: expected all, last or a number"),
        (["--scales", "a"], 2, "--scales a: expected numbers"),
        (["--scales=-1"], 2, "--scales -1: expected numbers of 0 or more"),
        (["--set", "exit=null"], 2, "full runs are analysed"),
        (["--set", "space.with.dim=3"], 2, "belongs to what was trained"),
        (["--sampler", "nobody"], 3, "nobody"),
    ],
)
def test_bad_words_of_analyze(model, call, tmp_path, words, code, message):
    given, out, err = call("analyze", model, "--out", tmp_path / "new", *words)
    assert (given, out) == (code, "")
    assert message in err


def test_no_model(call, tmp_path):
    code, _, err = call("analyze", tmp_path / "nowhere")
    assert (code, "there is no model" in err) == (3, True)
    code, _, err = call("analyze", "markov")
    assert (code, "one with nothing to train, such as markov, makes none" in err) == (2, True)
