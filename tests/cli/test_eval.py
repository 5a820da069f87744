"""``dlmkit eval`` on the exact test-bed: one record, repeated, compared, swept."""

import json
import socket
import subprocess
import sys

import pytest

from dlmkit.cli.app import main
from dlmkit.evaluation.texts import read_texts, write_texts
from dlmkit.training.metrics import read_metrics
from dlmkit_markov import data

TOY = [
    "length=8",
    "data.with.tokens=6",
    "schedule.with.levels=6",
    "schedule.with.rows=16",
    "sample.steps=6",
]
SETS = [word for override in TOY for word in ("--set", override)]
METRICS = ["--metric", "ngram-judge:unit=tokens;order=2", "--metric", "distinct:unit=tokens"]
QUICK = ["-n", "12", "--resamples", "16", *METRICS]


@pytest.fixture(scope="module", autouse=True)
def little_text():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "_TEXTS", {"train": 300, "validation": 100})
        yield


@pytest.fixture
def evaluate(capsys):
    """Runs the command; gives (exit code, stdout, stderr)."""

    def call(*words, model="markov", sets=SETS):
        code = main(["eval", model, *sets, *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def record(evaluate, *words):
    code, out, err = evaluate(*QUICK, "--json", *words)
    assert code == 0, err
    return json.loads(out)


def test_the_same_record_again(evaluate):
    first = record(evaluate, "--likelihood", "bound:rows=4;draws=2")
    again = record(evaluate, "--likelihood", "bound:rows=4;draws=2")
    assert first == again
    assert first["protocol"]["sampling"]["steps"] == 6
    assert first["protocol"]["texts"] == 12
    assert first["results"]["likelihood:bound"]["nats_per_token"]["error"] > 0.0
    judge = first["protocol"]["metrics"]["text:ngram-judge"]
    assert judge["with"] == {"order": 2, "unit": "tokens"}


def test_other_batch_sizes_stay_inside_the_interval(evaluate):
    whole, small = (record(evaluate, "--batch-size", size) for size in (12, 5))
    assert small["execution"]["batch_size"] == 5
    assert small["protocol"] == whole["protocol"]
    for metric, numbers in whole["results"].items():
        for name, found in numbers.items():
            value = small["results"][metric][name]["value"]
            assert found["low"] is None or found["low"] <= value <= found["high"]


@pytest.mark.slow
def test_two_processes_stay_inside_the_interval(evaluate, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "two.json"
    launch = ["torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    words = ["eval", "markov", *SETS, *QUICK, "--out", str(out)]
    subprocess.run([sys.executable, "-m", *launch, "-m", "dlmkit", *words], check=True, timeout=500)
    two = json.loads(out.read_text())
    with pytest.MonkeyPatch.context() as patch:  # subprocesses see all of the text
        patch.setattr(data, "_TEXTS", {"train": 10_000, "validation": 2_000})
        one = record(evaluate)
    assert two["execution"]["processes"] == 2
    assert two["protocol"] == one["protocol"]
    for metric, numbers in one["results"].items():
        for name, found in numbers.items():
            value = two["results"][metric][name]["value"]
            assert found["low"] is None or found["low"] <= value <= found["high"]


def test_texts_of_others_get_the_same_record(evaluate, tmp_path):
    texts, recipe = tmp_path / "a.jsonl", tmp_path / "toy.yaml"
    own = record(evaluate, "--texts", texts)
    values = "\n".join(f"{key}: {value}" for key, value in (("extends", "markov"), ("length", 8)))
    recipe.write_text(values + "\ndata: {use: markov:chain, with: {tokens: 6}}\n")
    words = ["--recipe", str(recipe), *QUICK[2:], "--json"]
    code, out, err = evaluate(*words, model=str(texts), sets=[])
    assert code == 0, err
    theirs = json.loads(out)
    assert theirs["protocol"]["sampling"] == "unknown"
    assert theirs["samples"]["sha256"] == own["samples"]["sha256"]
    assert theirs["results"] == own["results"]
    assert evaluate(*QUICK[4:], model=str(texts), sets=[])[0] == 2  # whose recipe?
    assert evaluate(*words, "-n", "3", model=str(texts), sets=[])[0] == 2


def test_compare_says_what_differs(evaluate, tmp_path, capsys):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    record(evaluate, "--out", one)
    record(evaluate, "--out", two, "--steps", 3)
    assert main(["eval", "compare", str(one), str(two)]) == 2
    assert "sampling.steps: 6 -> 3" in capsys.readouterr().err
    assert main(["eval", "compare", str(one), str(two), "--across", "steps"]) == 0
    assert "the texts are different" in capsys.readouterr().out
    assert main(["eval", "compare", str(one), str(one)]) == 0
    assert evaluate(*QUICK, "--out", one)[0] == 2  # a record is not overwritten


def test_a_frontier_with_its_picture(evaluate, tmp_path):
    out = tmp_path / "f.json"
    sweep = ["--frontier", "score-temperature=0.7,1.0", "--out", out]
    code, printed, err = evaluate(*QUICK, *sweep)
    assert code == 0, err
    content = json.loads(out.read_text())
    assert [point["value"] for point in content["points"]] == [0.7, 1.0]
    assert content["quality"] == ["text:ngram-judge", "nll_per_token"]
    guided = [p["record"]["protocol"]["sampling"]["guidance"] for p in content["points"]]
    assert [g[0]["with"]["temperature"] for g in guided] == [0.7, 1.0]
    assert (tmp_path / "f.png").stat().st_size > 5000
    assert "score-temperature" in printed


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--metric", "distnct"], 3, "distinct"),
        (["--metric", "distinct:colour=1"], 3, "colour: unknown key; there are unit, orders"),
        (["--metric", "distinct:unit=lines"], 3, "'tokens' or 'words', got 'lines'"),
        (["--metric", "ar-nll:judge=/nowhere"], 5, "there is no folder /nowhere"),
        (["--frontier", "steps=4"], 2, "two or more"),
        (["--frontier", "score-temperature=1,nan"], 2, "two or more"),
        (["--frontier", "steps=2,4", "--quality", "charm"], 2, "charm"),
        (["--likelihood", "guess"], 2, "bound or flow"),
        (["--likelihood", "bound:draws=3"], 2, "draws"),
        (
            ["--likelihood", "bound:draws=100000000000"],
            2,
            "draws: expected less than or",
        ),
        (["--likelihood", "bound:step=3"], 2, "step: unknown key; there are rows, draws"),
        (["--recipe", "markov"], 2, "for files of texts"),
        (["--out", "/nowhere/a.json"], 2, "no folder"),
    ],
)
def test_bad_input_is_one_message(evaluate, words, code, said):
    quick = QUICK if "--metric" not in words else QUICK[:4]
    found, _, err = evaluate(*quick, *words)
    assert (found, said in err, "Traceback" in err) == (code, True, False), err


@pytest.mark.parametrize("content", ["[]", '["", ""]', "[1]", "{"])
def test_files_without_texts(evaluate, tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    code, _, err = evaluate("--recipe", "markov", *METRICS, model=str(path), sets=[])
    assert code == 5, err


def test_texts_of_another_form_are_refused_with_what_is_read(evaluate, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("w01 w02")
    for recipe in ([], ["--recipe", "markov"]):
        code, _, err = evaluate(*recipe, *METRICS, model=str(path), sets=[])
        assert code == 2
        assert "texts are read from .json (one list) or .jsonl (one item per line)" in err
    path = path.rename(tmp_path / "a.json")
    path.write_text('["w01 \\ud800"]')
    code, _, err = evaluate("--recipe", "markov", *METRICS, model=str(path), sets=[])
    assert (code, "it holds half of a surrogate pair (U+D800), no text" in err) == (5, True)


def test_lines_end_at_line_feeds_alone(tmp_path):
    texts = ["a\u2028b\x85c", "d"]
    write_texts(texts, tmp_path / "a.jsonl")
    assert read_texts(tmp_path / "a.jsonl") == texts
    records = [{"kind": "sample", "step": 1, "texts": texts}]
    (tmp_path / "metrics.jsonl").write_text(json.dumps(records[0], ensure_ascii=False) + "\n")
    assert read_metrics(tmp_path / "metrics.jsonl") == records


def test_a_folder_may_be_called_compare(evaluate):
    code, _, err = evaluate(model="./compare", sets=[])
    assert code == 3
    assert "./compare" in err
