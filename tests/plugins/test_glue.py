"""`dlmkit glue` on made-up rows and a tiny model that was hardly trained."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from dlmkit.cli.app import main
from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import DataError, UsageError
from dlmkit.model import compose
from dlmkit.noise import Noise
from dlmkit.recipe.load import resolve_text
from dlmkit.registry.lookup import Registry
from dlmkit.training.checkpoint import publish
from dlmkit.training.loop import Learner
from dlmkit.training.parallel import Single
from dlmkit.training.state import capture, write_checkpoint
from dlmkit_glue import baselines, compare, data, encode, infill, metrics
from dlmkit_glue.tasks import TASKS, task

pytest.importorskip("sklearn", reason="needs the extra glue")
pytest.importorskip("scipy", reason="needs the extra glue")

GOOD, BAD = "lovely warm day", "grim cold night"
WORDS = "abcdefghijklmnopqrstuvwxyz'."


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A fresh model of characters, as a checkpoint."""
    folder = tmp_path_factory.mktemp("glue")
    text = folder / "text"
    text.mkdir()
    (text / "a.txt").write_text(
        "\n\n".join(f"{WORDS[i:]} {GOOD} {BAD} {WORDS[:i]}" * 3 for i in range(25))
    )
    recipe = {
        "length": 32,
        "data": {"use": "text:text", "with": {"paths": [str(text)], "validation": 0.3}},
        "schedule": {"use": "time-warp-table", "with": {"t_min": 0.4, "t_max": 20.0}},
        "space": {"use": "normalised", "with": {"dim": 16}},
        "network": {"use": "transformer", "with": {"width": 32, "blocks": 1, "heads": 2}},
        "masking": {"use": "cdcd:none"},
        "objective": {"use": "score-interpolation"},
        "train": {"steps": 1, "batch_size": 2},
    }
    registry = Registry.load(third_party=False)
    resolved = resolve_text(json.dumps(recipe), "toy", (), registry)
    parts = compose(**recipe).assembly
    world = Single(torch.device("cpu"))
    learner = Learner.begin(parts.objective, parts.config.train, world)
    write = partial(
        write_checkpoint,
        captured=capture(learner),
        learner=learner,
        recipe=resolved.text(),
        tokenizer=parts.tokenizer,
        progress={},
    )
    publish(folder / "run" / "checkpoints", 1, write)
    return folder / "run"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """sst2 in which one word tells the label, and stsb and mnli by the way."""
    folder = tmp_path_factory.mktemp("rows")
    for name, count in (("train", 96), ("validation", 40)):
        items = [
            {"sentence": (BAD, GOOD)[i % 2][: 8 + i % 7], "label": i % 2} for i in range(count)
        ]
        write(folder / "sst2" / f"{name}.jsonl", items)
    return folder


def write(file, items):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(item) + "\n" for item in items))


def glue(*words):
    return main(["glue", *map(str, words)])


@pytest.mark.parametrize(
    ("way", "options"),
    [("head", ()), ("infill", ("--steps", 6, "--exit", "fixed:step=4"))],
)
def test_a_learnable_task_is_learned_either_way(run, rows, capsys, way, options):
    rate = ("--lr", 5e-3, "--epochs", 12, "--seeds", 2, "--way", way)
    assert glue("sst2", "--model", run, "--data", rows, "--json", *rate, *options) == 0
    record = json.loads(capsys.readouterr().out)
    table = {row["system"]: row for row in record["rows"]}
    assert set(table) == {"pretrained", "random-init", "tfidf", "majority"}
    assert (record["task"], record["way"]) == ("sst2", way)
    assert table["pretrained"]["metrics"]["accuracy"] > 0.8
    assert table["majority"]["metrics"]["accuracy"] == 0.5
    assert table["pretrained"]["seeds"] == 2
    if way == "infill":
        took = table["pretrained"]["generation"]
        assert (took["halted"], took["steps"], took["evaluations"]) == (1.0, 4.0, 4.0)


@pytest.mark.parametrize("way", ["head", "infill"])
def test_on_an_accelerator_the_scores_are_the_cpus(accelerator, run, rows, capsys, way):
    words = ("--way", way, "--steps", 3, "--epochs", 1, "--max-train", 16, "--seeds", 1, "--json")
    found = []
    for place in ("cpu", accelerator):
        assert glue("sst2", "--model", run, "--data", rows, *words, "--device", place) == 0
        record = json.loads(capsys.readouterr().out)
        found.append([(row["system"], row["metrics"]) for row in record["rows"]])
    assert found[0] == found[1]


def test_the_subsample_is_said_and_drawn_by_the_seed(run, rows, capsys):
    words = ("sst2", "--model", run, "--data", rows, "--max-train", 8, "--epochs", 1, "--seeds", 1)
    assert glue(*words) == 0
    assert "8 of 96" in capsys.readouterr().out
    numbers = list(range(50))
    a, b = (data.subsample(numbers, 9, seed) for seed in (0, 1))
    assert a == data.subsample(numbers, 9, 0) != b
    assert len(set(a)) == 9
    assert data.subsample(numbers, 50, 0) is numbers


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("sst3",), 2, "did you mean 'sst2'"),
        (("sst2", "--max-train", 0), 2, "max-train"),
        (("sst2", "--exit", "fixed:step=2"), 2, "--way infill"),
        (("sst2", "--noise", 1e6), 2, "noise levels lie between"),
        (("sst2", "--lr", "nan"), 2, "--lr"),
        (("sst2", "--epochs", "inf"), 2, "--epochs"),
        (("sst2", "--epochs", 0), 2, "--epochs and --lr are to be above 0"),
        (("cola",), 5, "train.jsonl"),
        (("sst2", "--model", "no-such-model"), 3, "no-such-model"),
        (("sst2", "--model", "ddlm_grammar"), 2, "nothing is pretrained"),
    ],
)
def test_what_cannot_be_done_is_one_message(run, rows, capsys, words, code, said):
    model = () if "--model" in words else ("--model", run)
    assert glue(*words, *model, "--data", rows) == code
    out = capsys.readouterr()
    assert said in out.err
    assert "Traceback" not in out.err
    assert not out.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ('{"text": "a", "label": 1}', "no column 'sentence'"),
        ('{"sentence": 3, "label": 1}', "is no text"),
        ('{"sentence": "a", "label": 2}', "expected 0 to 1"),
        ('{"sentence": "a", "label": -1}', "hidden labels"),
        ("[1]", "expected an object"),
        ("{", "line 1: not JSON"),
    ],
)
def test_bad_rows_are_named(tmp_path, text, said):
    for split in ("train", "validation"):
        (tmp_path / "sst2").mkdir(exist_ok=True)
        (tmp_path / "sst2" / f"{split}.jsonl").write_text(text)
    with pytest.raises(DataError, match=said):
        data.load(task("sst2"), tmp_path)


def test_the_hub_out_of_reach_shows_what_to_do(monkeypatch):
    import datasets

    def refuse(*words, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match=r"no network[\s\S]*--data DIR[\s\S]*validation_matched"):
        data.load(task("mnli"), None)


def test_all_nine_tasks_are_scored_by_their_metrics():
    figures = {name: found.figures for name, found in TASKS.items()}
    assert figures["mnli"] == ("accuracy_matched", "accuracy_mismatched")
    assert figures["stsb"] == ("pearson", "spearman")
    assert len(figures) == 9
    truth, said = np.array([1.0, 1, 0, 0]), np.array([1.0, 0, 0, 0])
    found = metrics.score(task("mrpc"), {"validation": truth}, {"validation": said})
    assert found == pytest.approx({"accuracy": 3 / 4, "f1": 2 / 3})
    found = metrics.score(task("cola"), {"validation": truth}, {"validation": said})
    assert found["matthews"] == pytest.approx(2 / np.sqrt(1 * 2 * 2 * 3))
    constant = {"validation": np.full(4, 2.0)}
    assert set(metrics.score(task("stsb"), {"validation": truth}, constant).values()) == {None}


def test_baselines_where_there_is_nothing_to_learn():
    one = data.Example(("a b c",), 1.0)
    rows = data.TaskRows("made up", [one], {"validation": [one, one]})
    for system in (baselines.tfidf, baselines.majority):
        assert system(task("sst2"), rows, [one], 0)["validation"].tolist() == [1.0, 1.0]


def test_the_interval_over_seeds_is_students():
    truth = {"validation": np.array([1.0, 1, 0, 0])}
    first = [{"validation": np.array([1.0, 1, 0, a])} for a in (0.0, 1.0)]
    second = [{"validation": np.array([1.0, 0, 0, 1.0])}] * 2
    found = compare.compared(task("sst2"), truth, first, second)
    assert found["mean"]["accuracy"] == pytest.approx(0.375)
    # two differences of 1/2 and 1/4: the half-width is t(0.975, 1) * 0.125
    assert found["over_seeds"]["accuracy"][1] == pytest.approx(0.375 + 12.7062 * 0.125, rel=1e-4)


def tokenizer(characters):
    import tokenizers
    from tokenizers import Regex, models, pre_tokenizers

    vocabulary = {t: i for i, t in enumerate(["<pad>", "<unk>", *characters])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    return Tokenizer(backend)


def test_rows_are_cut_and_unknown_characters_left_out_and_both_are_counted():
    encoder = encode.Encoder(tokenizer("abc "), 8)
    space = encoder.tokenizer.encode(" ")[0]
    ids = encoder(data.Example(("AB9", "cccccccc"), 0.0))
    assert ids == [*encoder.tokenizer.encode("ab"), space, *encoder.tokenizer.encode("cccc"), space]
    assert encoder.tally == encode.Tally(1, 10, 1, 4, 1, 1)
    with pytest.raises(UsageError, match="leave 2 tokens"):
        encode.Encoder(tokenizer("ab"), 2)


def test_a_tokenizers_own_template_stands_around_the_texts():
    from tokenizers.processors import TemplateProcessing

    letters = tokenizer("abc<>|")
    start, end, between = (letters.encode(mark)[0] for mark in "<>|")
    letters.backend.post_processor = TemplateProcessing(
        single="< $A >",
        pair="< $A | $B >",
        special_tokens=[("<", start), (">", end), ("|", between)],
    )
    encoder = encode.Encoder(letters, 7)
    a, b = letters.encode("ab")
    assert encoder(data.Example(("ab",), 0.0)) == [start, a, b, end]
    assert encoder(data.Example(("ab", "bbb"), 0.0)) == [start, a, b, between, b, b, end]
    assert encoder.tally.dropped == 1


def test_every_row_comes_once_an_epoch_with_its_number():
    rows = [[2] * (1 + i % 5) for i in range(70)]
    epochs = encode.Epochs(rows, 10, 0, seed=3, numbered=True)
    seen = [epochs.read(step, torch.arange(10)) for step in range(7)]
    numbers = torch.cat([batch.ids[:, 0] for batch in seen])
    assert sorted(numbers.tolist()) == list(range(70))
    for batch in seen:
        lengths = [len(rows[i]) for i in batch.ids[:, 0].tolist()]
        assert batch.attend.sum(1).tolist() == lengths
    again = encode.Epochs(rows, 10, 0, seed=3, numbered=True).read(5, torch.arange(10))
    assert torch.equal(again.ids, seen[5].ids)


@pytest.mark.parametrize(("count", "size"), [(70, 10), (73, 10), (7, 5), (11, 8), (5, 9)])
def test_every_row_comes_once_in_every_epoch_whatever_remains(count, size):
    rows = [[2] * (1 + i % 5) for i in range(count)]
    epochs = encode.Epochs(rows, size, 0, seed=3, numbered=True)
    steps = epochs.steps(3)
    assert (steps - 1) * epochs.size < 3 * count <= steps * epochs.size
    numbers = [
        number
        for step in range(steps)
        for number in epochs.read(step, torch.arange(epochs.size)).ids[:, 0].tolist()
    ]
    times = np.bincount(numbers[: 3 * count], minlength=count)
    assert times.tolist() == [3] * count
    backwards = [epochs.read(step, torch.arange(epochs.size)) for step in reversed(range(steps))]
    assert [n for batch in reversed(backwards) for n in batch.ids[:, 0].tolist()] == numbers
    assert epochs.steps(0.0) == 1


@pytest.mark.parametrize("way", ["head", "infill"])
def test_a_loss_that_is_annealed_goes_on_where_pretraining_ended(run, rows, monkeypatch, way):
    """Fresh weights begin at 0, those of the run at the step that it was saved at."""
    seen = []

    def watched(learner, *rest):
        seen.append(learner.before)
        return iter(())

    monkeypatch.setattr("dlmkit_glue.run.train", watched)
    assert glue("sst2", "--model", run, "--data", rows, "--seeds", 1, "--way", way) == 0
    assert seen == [1, 0]


def test_only_the_label_is_wanted_and_the_nearest_word_counts():
    attend = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]).bool()
    drawn = infill.LastTokens(2).draw(attend, Noise.keyed(0, torch.arange(2), 0))
    assert drawn.tolist() == [[True, True, False, False], [True, False, False, False]]
    spelled = infill.Verbaliser.of(task("sst2"), tokenizer("badgo "))
    good = [*tokenizer("badgo ").encode("good")]
    assert spelled.nearest(good) == (1, True)
    assert spelled.nearest([*good[:3], 0]) == (1, False)
    with pytest.raises(DataError, match="cannot spell"):
        infill.Verbaliser.of(task("sst2"), tokenizer("xyz "))
