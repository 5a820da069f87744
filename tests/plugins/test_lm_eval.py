"""The harness's model: exact on the test-bed, and the same whatever batches and processes."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from launched import launch

from dlmkit.errors import UsageError

lm_eval = pytest.importorskip(
    "lm_eval", reason="the extra lm-eval is not installed: pip install 'dlmkit[lm-eval]'"
)

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from dlmkit_lm_eval.model import DlmkitLM  # noqa: E402

RECIPE = """
extends: markov_masked
length: 12
data: {use: markov:chain, with: {tokens: 6, successors: 2, sharpness: 1.0}}
"""

CHOICE = """
task: chain_choice
dataset_path: json
dataset_kwargs: {data_files: {test: "DATA"}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{text}}"
doc_to_choice: choices
doc_to_target: label
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""

WRITE = """
task: chain_write
dataset_path: json
dataset_kwargs: {data_files: {test: "DATA"}}
output_type: generate_until
test_split: test
doc_to_text: "{{text}}"
doc_to_target: "{{choices[label]}}"
generation_kwargs: {until: ["w5"], max_gen_toks: 4}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""

ROLLING = """
task: chain_rolling
dataset_path: json
dataset_kwargs: {data_files: {test: "DATA"}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, the data of a task, and three tasks in the harness's own format."""
    folder = tmp_path_factory.mktemp("harness")
    (folder / "bed.yaml").write_text(RECIPE)
    model = DlmkitLM(model=str(folder / "bed.yaml"), device="cpu").model
    chain, decode = model.data.chain, model.assembly.tokenizer.decode
    lines = []
    for row in model.data.validation(9).ids.tolist():
        last = row[5] - 1
        good = 1 + int(chain.transition[last].argmax())
        bad = 1 + int(chain.transition[last].argmin())
        doc = {"text": decode(row[:6]), "choices": [decode([bad]), decode([good])], "label": 1}
        lines.append(json.dumps(doc))
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    for text in (CHOICE, WRITE, ROLLING):
        name = text.split()[1]
        (folder / f"{name}.yaml").write_text(text.replace("DATA", str(folder / "data.jsonl")))
    return folder


def model(bench: Path, **options: Any) -> DlmkitLM:
    return DlmkitLM(model=str(bench / "bed.yaml"), device="cpu", **options)


def asked(kind: str, *arguments: Any) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def evaluated(bench: Path, tasks: list[str], batch_size: int, **options: Any) -> dict[str, Any]:
    words = ",".join(f"{name}={value}" for name, value in options.items())
    found = lm_eval.simple_evaluate(
        model="dlmkit",
        model_args=f"model={bench / 'bed.yaml'},{words}".rstrip(","),
        tasks=tasks,
        batch_size=batch_size,
        device="cpu",
        task_manager=TaskManager(include_path=str(bench), include_defaults=False),
        bootstrap_iters=0,
    )
    return {task: [sample["resps"] for sample in found["samples"][task]] for task in tasks} | {
        "results": found["results"]
    }


def test_one_token_a_block_is_the_chains_own_likelihood(bench: Path):
    lm = model(bench, block=1)
    chain = lm.model.data.chain
    [(found, greedy)] = lm.loglikelihood([asked("loglikelihood", "w0 w1 w2 w3", " w4 w5")])
    expected = math.log(chain.transition[3, 4]) + math.log(chain.transition[4, 5])
    assert found == pytest.approx(expected)
    best = int(chain.transition[3].argmax())
    [(_, yes)] = lm.loglikelihood([asked("loglikelihood", "w3", f" w{best}")])
    assert yes
    assert greedy == (best == 4 and int(chain.transition[4].argmax()) == 5)
    [(first, _)] = lm.loglikelihood([asked("loglikelihood", "", "w2")])
    assert first == pytest.approx(math.log(chain.initial[2]))


def test_long_texts_are_windows_and_long_contexts_are_cut(bench: Path):
    lm = model(bench, block=1, stride=5)
    words = lm.model.data.validation(3).ids.flatten().tolist()
    text = lm.model.assembly.tokenizer.decode(words)
    own, chain = [i - 1 for i in words], lm.model.data.chain
    pairs = itertools.pairwise(own)
    expected = math.log(chain.initial[own[0]]) + sum(math.log(chain.transition[p]) for p in pairs)
    [found] = lm.loglikelihood_rolling([asked("loglikelihood_rolling", text)])
    assert found == pytest.approx(expected)
    with pytest.warns(UserWarning, match="cut on the left to texts of 12 tokens"):
        [(cut, _)] = lm.loglikelihood([asked("loglikelihood", text, " w0")])
    assert cut == pytest.approx(math.log(chain.transition[own[-1], 0]))
    with pytest.raises(UsageError, match="13 tokens; this model's texts have at most 12"):
        lm.loglikelihood([asked("loglikelihood", "", " ".join(["w0"] * 13))])


def test_texts_end_where_a_task_says(bench: Path):
    lm = model(bench, steps=8)
    options = {"until": ["w5"], "max_gen_toks": 6, "temperature": 0.7}
    requests = [asked("generate_until", context, options) for context in ("w0 w1", "w2", "w0 w1")]
    with pytest.warns(UserWarning, match="do_sample and temperature"):
        one, two, three = lm.generate_until(requests)
    assert one == three  # a text depends on its request
    assert "w5" not in one + two
    assert len(lm.generate_until([asked("generate_until", "w2", {"until": []})])[0].split()) >= 1


def test_a_task_is_the_same_at_any_batch_size(bench: Path):
    tasks = ["chain_choice", "chain_write", "chain_rolling"]
    one = evaluated(bench, tasks, 1, draws=8, steps=6)
    assert evaluated(bench, tasks, 5, draws=8, steps=6) == one
    assert one["results"]["chain_choice"]["acc,none"] == 1.0
    other = evaluated(bench, ["chain_rolling"], 1, draws=8, seed=1)
    assert other["chain_rolling"] != one["chain_rolling"]


@pytest.mark.slow
def test_two_processes_answer_as_one_does(bench: Path, tmp_path: Path):
    """Through the harness's own program."""
    words = [
        "run",
        "--model",
        "dlmkit",
        "--model_args",
        f"model={bench / 'bed.yaml'},draws=8,steps=6",
    ]
    words += ["--tasks", "chain_choice,chain_write,chain_rolling", "--include_path", str(bench)]
    words += ["--device", "cpu", "--log_samples", "--batch_size", "2", "--output_path"]
    jobs = [(size, [*words, str(tmp_path / name)]) for name, size in (("alone", 1), ("two", 2))]
    offline = {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    assert launch(jobs, program="dlmkit_lm_eval.__main__", **offline) == [[0], [0, 0]]
    found = {}
    for name in ("alone", "two"):
        answers = {}
        for path in sorted((tmp_path / name).rglob("samples_*.jsonl")):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            answers[path.name.rpartition("_")[0]] = [(s["doc_id"], s["resps"]) for s in lines]
        found[name] = answers
    assert len(found["alone"]) == 3
    assert found["alone"] == found["two"]


def test_options_out_of_range_are_refused(bench: Path):
    with pytest.raises(UsageError, match="--model_args draws: "):
        model(bench, draws=3)
    for name, value in (("stride", "a"), ("steps", 0), ("max_gen_toks", -1), ("rows", 10**12)):
        with pytest.raises(UsageError, match=f"--model_args {name}: expected .*, got '?{value}"):
            model(bench, **{name: value})
    with pytest.raises(UsageError, match="stride=99: expected 1 to 12"):
        model(bench, stride=99)
    with pytest.raises(UsageError, match="--batch_size auto: expected a number"):
        model(bench, batch_size="auto")
