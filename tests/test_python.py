"""The Python API: a model composed, trained, left and gone on with, sampled, saved, loaded."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

import dlmkit
from dlmkit.errors import RecipeError, UsageError
from dlmkit.model import Run, compose, open_model
from dlmkit.sampling.requests import Request

PARTS = {
    "data": "grammar",
    "schedule": {"use": "time-warp-table", "with": {"t_min": 0.4, "t_max": 50.0}},
    "space": {"use": "normalised", "with": {"dim": 8}},
    "network": {"use": "transformer", "with": {"width": 16, "blocks": 1, "heads": 2}},
    "masking": "none",
    "objective": "score-interpolation",
    "length": 32,
    "train": {"steps": 5, "batch_size": 4, "learning_rate": 0.02, "warmup_steps": 1},
    "sample": {"steps": 4},
}


def fresh(**changes):
    return compose(**{**PARTS, **changes})


def weights(model):
    return {name: value.clone() for name, value in model.assembly.objective.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def facts(records):
    return [(record.step, record.loss, record.gradient_norm) for record in records]


@pytest.fixture(scope="module")
def straight():
    """(records, weights) of a training that nobody disturbs."""
    model = fresh()
    return facts(model.train()), weights(model)


def test_a_composed_model_is_trained_saved_and_loaded(tmp_path):
    model = fresh()
    assert (model.folder, model.step) == (None, 0)
    model.save(tmp_path / "untrained")
    assert same(weights(dlmkit.load(tmp_path / "untrained")), weights(model))
    assert [record.step for record in model.train()] == [1, 2, 3, 4, 5]
    model.save(tmp_path / "mine", licence="cc0-1.0")
    loaded = dlmkit.load(tmp_path / "mine")
    assert (loaded.folder, loaded.step, loaded.weights) == (tmp_path / "mine", 5, "ema")
    assert loaded.sample(2) == model.sample(2)
    card = (tmp_path / "mine" / "README.md").read_text()
    for words in ("# mine", "license: cc0-1.0", "5 of 5 steps of 4 rows", "after step 5"):
        assert words in card
    with pytest.raises(UsageError, match="mine exists already"):
        model.save(tmp_path / "mine")


def test_a_loaded_model_is_trained_on_with_its_data(tmp_path):
    model = fresh()
    list(model.train())
    model.save(tmp_path / "mine")
    loaded, before = dlmkit.load(tmp_path / "mine"), weights(model)
    assert [record.step for record in loaded.train()] == [1, 2, 3, 4, 5]
    assert not same(weights(loaded), before)
    assert (loaded.folder, loaded.step) == (None, 10)
    loaded.save(tmp_path / "more")
    assert "10 steps of 4 rows" in (tmp_path / "more" / "README.md").read_text()
    assert dlmkit.load(tmp_path / "more").step == 10


def test_a_loss_that_is_annealed_goes_on_where_the_weights_were_left(monkeypatch):
    model, seen = fresh(train={"steps": 3, "batch_size": 4}), []
    objective = model.assembly.objective
    forward = objective.forward
    monkeypatch.setattr(
        objective,
        "forward",
        lambda rows, draws: seen.append(int(draws.step[0])) or forward(rows, draws),
    )
    for _ in range(2):
        list(model.train())
    assert seen == [0, 1, 2, 3, 4, 5]


def test_a_training_that_is_left_goes_on_as_if_it_had_not_been(straight):
    model, seen = fresh(), []
    for record in model.train():
        seen.append(record)
        if record.step == 2:
            break
    assert model.step == 2
    assert not model.assembly.objective.training
    assert not same(weights(model), weights(fresh()))
    assert model.sample(1) == model.sample(1)
    seen += model.train()
    assert (facts(seen), model.step) == (straight[0], 5)
    assert same(weights(model), straight[1])
    assert [record.step for record in model.train()] == [1, 2, 3, 4, 5]  # anew, from here


def interrupted(model, step, times=1):
    """What is seen of a training in whose ``step`` Ctrl-C comes while the network computes."""
    before, seen, passes = signal.getsignal(signal.SIGINT), [], []

    def press(*_):
        passes.append(len(seen) + 1)
        if passes.count(step) == 1 and passes[-1] == step:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)

    hook = model.assembly.network.register_forward_pre_hook(press)
    with pytest.raises(KeyboardInterrupt):
        seen.extend(model.train())
    hook.remove()
    assert signal.getsignal(signal.SIGINT) is before
    return seen


def test_an_interrupt_waits_for_the_end_of_the_step(straight):
    model = fresh()
    seen = interrupted(model, 3)
    assert len(seen) == 2
    assert model.step == 3
    seen += model.train()
    assert facts(seen) == straight[0]
    assert same(weights(model), straight[1])


def test_after_a_second_interrupt_training_starts_anew():
    model = fresh()
    assert len(interrupted(model, 3, times=2)) == 2
    assert [record.step for record in model.train()] == [1, 2, 3, 4, 5]


def test_parts_are_chosen_by_call(tmp_path):
    model = fresh()
    list(model.train())
    model.save(tmp_path / "m")
    other = dlmkit.load(tmp_path / "m", "sampler.use=ancestral").sample(2)
    assert model.sample(2, sampler="ancestral") == other
    assert model.sample(2, sampler={"use": "ancestral"}) == other
    assert model.sample(2) != other
    assert model.config.sampler.use == "samplers:euler", "the model itself keeps its own"
    fixed = model.with_parts(exit="fixed:step=2")
    assert [text.steps for text in fixed.sample(2)] == [2, 2]
    assert [text.steps for text in fixed.sample(2, exit="none")] == [4, 4]
    guide = {"use": "classifier-free", "with": {"scale": 2.0}}
    for guidance in (guide, [guide], "classifier-free:scale=2.0"):
        (text,) = model.sample(1, prompt="the badger", guidance=guidance)
        assert text.evaluations == 8
    guided = model.with_parts(guidance=guide)
    assert [guided.sample(1, guidance=none)[0].evaluations for none in ([], "none")] == [4, 4]


def test_a_model_is_changed_by_the_words_of_set_and_run_on_requests():
    model = fresh()
    changed = model.with_("sampler.use=ancestral", "sample.steps=3")
    assert (model.config.sampler.use, model.config.sample.steps) == ("samplers:euler", 4)
    requests = changed.requests(3, length=5)
    samples = changed.run(requests, Run(seed=7, batch_size=2))
    assert [sample.steps for sample in samples] == [3, 3, 3]
    assert changed.texts(samples, 7) == model.sample(3, 7, steps=3, length=5, sampler="ancestral")
    assert model.with_() is model
    with pytest.raises(UsageError, match="'network' belongs to what was trained"):
        model.with_("network.with.width=8")
    assert changed.data is model.data


def test_rows_are_as_long_as_a_run_says():
    model = fresh()
    requests = model.requests(2, length=5)
    widths = {step.x.shape[1] for step in model.stream(requests, Run(length=6))}
    assert widths == {6}
    with pytest.raises(UsageError, match="length is 0; expected an integer from 1 to"):
        model.run(requests, Run(length=0))
    with pytest.raises(UsageError, match="text 0 has 5 tokens; this model writes 1 to 4"):
        model.run(requests, Run(length=4))


@pytest.mark.parametrize("sampler", ["mdlm:unmasking", "masked:decoder"])
def test_rows_of_token_ids_are_as_long_as_their_texts_and_write_what_longer_rows_would(sampler):
    model = open_model("markov_masked", ["length=24", f"sampler.use={sampler}"])
    requests = [Request.free(0, 6), Request.prompt(1, [2, 3], 9), Request.free(2, 9)]
    assert {step.x.shape[1] for step in model.stream(requests, Run(steps=5))} == {9}
    whole = [model.run(requests, Run(3, 5, length=length)) for length in (None, 12, 24)]
    alone = model.run(requests[:1], Run(3, 5))
    assert [[s.ids for s in found] for found in whole] == [[s.ids for s in whole[0]]] * 3
    assert alone[0].ids == whole[0][0].ids


def test_a_model_reads_its_text_once(tmp_path):
    fresh().save(tmp_path / "m")
    loaded = dlmkit.load(tmp_path / "m")
    assert loaded.assembly.data is None
    assert loaded.data is loaded.data
    assert loaded.with_("sampler.use=ancestral").data is loaded.data


def test_a_callback_sees_every_step(capsys):
    model, done = fresh(), []
    texts = model.sample(3, batch_size=2, progress=lambda step: done.append(len(step.samples)))
    assert (len(done), sum(done)) == (8, 3)
    assert model.sample(3, batch_size=2, progress=True) == texts
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n is 0; expected an integer from 1 to 2^63 - 1"),
        ({"n": "3"}, "n is '3'; expected"),
        ({"seed": -1}, "seed is -1; expected an integer from 0 to 2^63 - 1"),
        ({"seed": 2**63}, f"seed is {2**63}; expected"),
        ({"seed": 1.5}, "seed is 1.5; expected"),
        ({"seed": True}, "seed is True; expected"),
        ({"n": 2**20 + 1}, "the number of texts is 1048577; expected an integer from 1 to 1048576"),
        ({"steps": 10**12}, "steps is 1000000000000; expected an integer from 1 to 1048576"),
        ({"prompt": 3}, "prompt is 3; expected a text, or a list of texts"),
        ({"infill": ["___ .", b"x"]}, "infill is b'x'; expected a text"),
        ({"batch_size": 0}, "batch_size is 0; expected an integer from 1"),
        ({"steps": 0}, "steps is 0; expected an integer from 1"),
        ({"length": 33}, "length is 33; expected an integer from 1 to 32"),
        ({"n": 2, "offset": 2**63 - 1}, "the index of the last text is"),
        (
            {"sampler": "eulr"},
            "sampler='eulr': sampler.use: nobody provides a sampler named",
        ),
        ({"sampler": "ancestral:"}, "sampler 'ancestral:': expected a name"),
        ({"exit": {"used": "fixed"}}, "exit {'used': 'fixed'}: expected a name, or"),
        ({"grid": 3}, "grid 3: expected a name, or"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises((UsageError, RecipeError)) as caught:
        fresh().sample(**{"n": 1, **arguments})
    assert message in str(caught.value)


def test_what_is_wrong_with_a_composed_recipe_is_told_by_its_keys():
    with pytest.raises(RecipeError) as caught:
        fresh(
            schedule={"use": "time-warp-table", "with": {"t_mn": 1}},
            grid="evn",
            train={"steps": object()},
        )
    said = str(caught.value).splitlines()
    assert [line.split(": ")[:2] for line in said] == [
        ["compose", "schedule.with.t_mn"],
        ["compose", "train.steps"],
        ["compose", "grid.use"],
    ]
    assert said[1].endswith("(object) cannot stand in a recipe")
    with pytest.raises(RecipeError, match="compose: length: expected an integer, got 'x'"):
        fresh(length="x")
    with pytest.raises(UsageError, match="device tpu: "):
        fresh(device="tpu")


def test_values_of_python_stand_in_a_recipe(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("\n".join(f"a line of text, number {i}" for i in range(400)))
    data = {"use": "text", "with": {"paths": (path,), "document": "line"}}
    model = fresh(data=data, metric=["ngram-judge", "distinct"], extends="ddlm_grammar")
    assert Path(model.config.data.options["paths"][0]) == path
    assert [part.use for part in model.config.metric] == ["text:ngram-judge", "text:distinct"]


def test_overrides_and_weights_are_named_as_they_were_given(tmp_path):
    model = fresh()
    model.save(tmp_path / "m")
    for call, message in (
        (
            lambda: dlmkit.load(tmp_path / "m", "sampler.use=eulr"),
            "'sampler.use=eulr': sampler",
        ),
        (lambda: dlmkit.load(tmp_path / "m", "length=3"), "'length=3': 'length' belongs to what"),
        (lambda: dlmkit.load(tmp_path / "m", "sampler"), "'sampler': expected key.path=value"),
        (lambda: dlmkit.load(tmp_path / "m", weights="best"), "weights is 'best'; expected 'ema'"),
    ):
        with pytest.raises((UsageError, RecipeError)) as caught:
            call()
        assert str(caught.value).startswith(message)
    assert dlmkit.load("markov").sample(1, steps=2)


def test_a_model_is_shown_in_a_few_lines():
    lines = repr(fresh(exit={"use": "fixed", "with": {"step": 2}})).splitlines()
    assert lines[0].startswith("Model of no folder: ")
    assert lines[0].endswith(" parameters after 0 steps, on cpu")
    assert "  network: cdcd:transformer" in lines
    assert "  exit: samplers:fixed" in lines
    assert len(lines) == 10
    assert all(len(line) < 100 for line in lines)


def test_curves_of_records_and_of_a_run(tmp_path):
    model = fresh()
    figure = dlmkit.curves(model.train())
    (axes,) = figure.axes
    assert list(axes.lines[0].get_xdata()) == [1, 2, 3, 4, 5]
    figure.canvas.draw()
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    level = {"context_free": 1.0, "model": 0.5, "bigram": None}
    records = [
        {"kind": "train", "step": 1, "loss": 2.0, "tokens": 8, "seconds": 1.0},
        {"kind": "validation", "step": 1, "loss": 1.0, "levels": [level]},
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "metrics.jsonl").write_text(lines)
    assert len(dlmkit.curves(tmp_path).axes) == 2
    for nothing, message in (([], "there are no records"), (tmp_path / "no", "cannot be read")):
        with pytest.raises(UsageError, match=message):
            dlmkit.curves(nothing)
