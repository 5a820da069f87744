"""``dlmkit sample`` and ``dlmkit.load`` on a small model of the toy grammar."""

import io
import json
import re
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch

import dlmkit
from dlmkit.cli.app import main
from dlmkit.errors import CheckpointError, RecipeError, UsageError
from dlmkit.model import load_model
from dlmkit.recipe.assemble import assemble
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry
from dlmkit.training.checkpoint import publish
from dlmkit.training.loop import Learner, train
from dlmkit.training.parallel import Single
from dlmkit.training.state import capture, write_checkpoint

SMALL = [
    "network.with.width=16",
    "network.with.heads=2",
    "network.with.blocks=1",
    "space.with.dim=8",
    "train.steps=4",
    "train.learning_rate=0.02",
    "train.warmup_steps=1",
    "sample.steps=6",
    "seed=11",
]
LENGTH = 32


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run of four steps with two checkpoints."""
    registry = Registry.load(third_party=False)
    recipe = load_recipe("ddlm_grammar", SMALL, registry)
    config = recipe.config
    parts = assemble(config, registry)
    world = Single(torch.device("cpu"))
    learner = Learner.begin(parts.objective, config.train, world)
    folder = tmp_path_factory.mktemp("runs") / "grammar"
    stream = parts.data.stream(config.seed, config.train.batch_size)
    for record in train(learner, stream, config.train, config.seed, world):
        if record.step in (2, 4):
            write = partial(
                write_checkpoint, captured=capture(learner), learner=learner,
                recipe=recipe.text(), tokenizer=parts.tokenizer, progress={},
            )  # fmt: skip
            publish(folder / "checkpoints", record.step, write)
    return folder


@pytest.fixture
def sample(trained, capsys):
    """Runs the command; gives (exit code, stdout, stderr)."""

    def call(*arguments, model=trained):
        code = main(["sample", str(model), *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def copy(trained, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    return folder


def texts(output):
    return [entry["text"] for entry in json.loads(output)]


def test_texts_on_stdout_talk_on_stderr(sample, trained):
    code, out, err = sample("-n", 3)
    assert code == 0
    assert len(out.splitlines()) == 3
    assert err == (
        f"{trained}/checkpoints/step-00000004: 3 texts of 32 tokens, 6 steps, "
        "samplers:ancestral on samplers:warped, vocabulary step by flash-cpu\n"
    )


def test_eight_texts_with_seed_0_by_default(sample):
    _, out, _ = sample("--json")
    entries = json.loads(out)
    assert [(e["index"], e["seed"], e["steps"], e["evaluations"]) for e in entries] == [
        (i, 0, 6, 6) for i in range(8)
    ]
    assert [e["halted"] for e in entries] == [None] * 8
    assert sample("--json", "--seed", 0)[1] == out


def test_a_text_depends_on_the_seed_and_its_index_alone(sample):
    many = texts(sample("--json", "-n", 6)[1])
    assert len(set(many)) == 6
    assert texts(sample("--json", "-n", 6, "--batch-size", 4)[1]) == many
    assert texts(sample("--json", "-n", 2, "--batch-size", 1)[1]) == many[:2]
    assert not set(texts(sample("--json", "-n", 6, "--seed", 1)[1])) & set(many)


def test_a_run_is_its_newest_checkpoint(sample, trained):
    newest, older = (trained / "checkpoints" / f"step-0000000{step}" for step in (4, 2))
    assert sample("--json", model=newest)[1] == sample("--json")[1]
    assert sample("--json", model=older)[1] != sample("--json")[1]


def test_prompts_begin_every_text(sample):
    _, out, _ = sample("--prompt", "the badger found", "-n", 3)
    assert [line.startswith("the badger found ") for line in out.splitlines()] == [True] * 3


def test_the_gap_takes_what_is_left(sample):
    _, out, _ = sample("--infill", "the badger ___ .", "-n", 3)
    for line in out.splitlines():
        assert re.fullmatch(r"the badger .* \.", line)


def test_several_gaps_share_what_is_left(trained):
    (request,) = load_model(trained).requests(1, infill="the badger ___ the ___ .")
    runs = "".join("_" if token is None else "x" for token in request.tokens).split("x")
    assert len(request.tokens) == LENGTH
    assert [len(run) for run in runs] == [0, 0, 14, 14, 0]


def test_a_gap_at_either_end(trained):
    loaded = load_model(trained)
    (request,) = loaded.requests(1, infill="___ found the lamp ___")
    assert request.tokens[0] is None
    assert request.tokens[-1] is None
    assert sum(token is not None for token in request.tokens) == 3


def test_sampling_keys_can_be_set(sample):
    options = ["--set", "sampler.use=heun", "--set", "grid={use: karras, with: {rho: 3.0}}"]
    code, out, err = sample("--json", "-n", 2, "--steps", 5, *options)
    assert code == 0
    assert [entry["evaluations"] for entry in json.loads(out)] == [9, 9]
    assert "5 steps, samplers:heun on samplers:karras" in err


def test_parts_have_short_forms(sample):
    options = ["--sampler", "heun", "--grid", "karras:rho=3.0", "--steps", 5]
    code, out, err = sample("--json", "-n", 2, *options)
    assert code == 0
    assert "5 steps, samplers:heun on samplers:karras" in err
    _, longer, _ = sample(
        "--json", "-n", 2, "--steps", 5, "--set", "sampler.use=heun",
        "--set", "grid={use: karras, with: {rho: 3.0}}",
    )  # fmt: skip
    assert out == longer


def test_set_is_stronger_than_a_short_form(sample):
    _, _, err = sample("-n", 1, "--sampler", "heun", "--set", "sampler.use=euler")
    assert "samplers:euler" in err


def test_guidance_repeats_and_none_drops(sample):
    guided = ["--guidance", "classifier-free:scale=1.5", "--guidance", "renormalised"]
    _, out, _ = sample("--json", "-n", 1, "--prompt", "the badger", *guided)
    assert json.loads(out)[0]["evaluations"] == 12
    _, out, _ = sample("--json", "-n", 1, "--exit", "fixed:step=2", "--set", "exit=null")
    assert json.loads(out)[0]["steps"] == 6
    _, out, _ = sample("--json", "-n", 1, "--exit", "none", "--guidance", "none")
    assert json.loads(out)[0]["steps"] == 6


def test_positions_settle(sample):
    _, out, _ = sample("--json", "-n", 2, "--freeze", "fixed:step=2")
    assert [(e["steps"], e["halted"]) for e in json.loads(out)] == [
        (2, "every position settled")
    ] * 2


def test_several_prompts_take_turns_in_one_queue(sample, tmp_path):
    file = tmp_path / "asked.txt"
    file.write_text("the lamp\n\n___ found the lamp .\n")
    asked = ["--prompt", "the badger found", "--infill", "the badger ___ .", "--prompts", file]
    shapes = [r"the badger found .*", r"the badger .* \.", r"the lamp .*", r".* found the lamp \."]
    once = texts(sample("--json", *asked)[1])
    assert len(once) == 4
    twice = texts(sample("--json", "-n", 2, "--batch-size", 3, *asked)[1])
    assert twice[:4] == once
    for number, text in enumerate(twice):
        assert re.fullmatch(shapes[number % 4], text)


def test_lengths_take_turns(trained):
    loaded = load_model(trained)
    requests = loaded.requests(4, ["the badger", "the lamp"], length=[5, 9, 32])
    assert [len(request.tokens) for request in requests] == [5, 9, 32, 5, 9, 32, 5, 9]
    alone = loaded.sample(1, prompt="the badger", length=5)[0]
    mixed = loaded.sample(4, prompt=["the badger", "the lamp"], length=[5, 9, 32])
    assert mixed[0].text == alone.text


def test_texts_from_an_index_on_are_the_same_texts(sample, trained):
    asked = (
        "--json",
        "--prompt",
        "the badger",
        "--prompt",
        "the lamp",
        "--infill",
        "___ found the lamp .",
    )
    whole = json.loads(sample(*asked, "-n", 3)[1])
    assert [entry["index"] for entry in whole] == list(range(9))
    assert json.loads(sample(*asked, "-n", 1, "--offset", 4)[1]) == whole[4:7]
    drawn = load_model(trained).sample(2, offset=2)
    assert [t.index for t in drawn] == [2, 3]
    assert drawn == load_model(trained).sample(4)[2:]
    assert load_model(trained).sample(1, offset=2**63 - 1)[0].index == 2**63 - 1
    with pytest.raises(UsageError, match="offset is -1"):
        load_model(trained).sample(2, offset=-1)


def test_prompts_are_read_from_standard_input(sample, monkeypatch):
    given = "\ufeffthe badger\n\nthe lamp ___ .\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    first, second = texts(sample("--json", "--prompts", "-")[1])
    assert first.startswith("the badger ")
    assert re.fullmatch(r"the lamp .* \.", second)
    for given, message in (
        (b"", "--prompts -: it is empty"),
        (b"\xff", "--prompts -: not UTF-8 text"),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        code, _, err = sample("--prompts", "-")
        assert (code, message in err) == (2, True)


def test_exits_say_why(sample):
    rule = "exit={use: any, with: {rules: [{use: fixed, with: {step: 3}}]}}"
    _, out, _ = sample("--json", "-n", 2, "--set", rule)
    assert [(e["steps"], e["halted"]) for e in json.loads(out)] == [(3, "step >= 3")] * 2


def test_guidance_doubles_the_evaluations(sample):
    guide = "guidance=[{use: classifier-free, with: {scale: 2.0}}]"
    _, out, _ = sample("--json", "-n", 2, "--prompt", "the badger", "--set", guide)
    assert [entry["evaluations"] for entry in json.loads(out)] == [12, 12]


def test_seeds_can_be_set_and_the_option_wins(sample):
    assert json.loads(sample("--json", "-n", 1, "--set", "seed=5")[1])[0]["seed"] == 5
    assert json.loads(sample("--json", "-n", 1, "--set", "seed=5", "--seed", 6)[1])[0]["seed"] == 6


def test_averaged_and_raw_weights_differ(sample):
    averaged, raw = (sample("--json", "--weights", w)[1] for w in ("ema", "raw"))
    assert averaged == sample("--json")[1]
    assert averaged != raw


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["-n", 0], 2, "greater than or equal to 1"),
        (["--steps", 0], 2, "greater than or equal to 1"),
        (["--batch-size", 0], 2, "greater than or equal to 1"),
        (["--seed", -1], 2, "greater than or equal to 0"),
        (["--seed", 2**63], 2, "less than or equal to"),
        (["--weights", "best"], 2, "ema"),
        (["--device", "tpu"], 2, "--device tpu: torch knows no such device; expected auto, cpu"),
        (["--infill", "the badger"], 2, "'the badger' has no gap to fill in: mark one or more by"),
        (
            ["--prompt", "the " * 32],
            2,
            "has 32 tokens, and its text is to have 32: shorten it to 31 or fewer",
        ),
        (["--infill", "the " * 31 + "___ . ___"], 2, "leaves no token for each gap"),
        (["--set", "train.steps=9"], 2, "'train' belongs to what was trained"),
        (["--set", "smapler.use=heun"], 3, "unknown key, did you mean 'sampler' or 'sample'?"),
        (["--set", "extends=x.yaml"], 3, "unknown key"),
        (["--set", "sampler"], 2, "--set sampler: expected key.path=value"),
        (["--set", "length=9"], 2, "what can are sampler, grid, exit, freeze, guidance, statistic"),
        (["--set", "sampler"], 2, "expected key.path=value"),
        (["--length", 0], 2, "greater than or equal to 1"),
        (["--length", 33], 2, "length is 33; expected an integer from 1 to 32"),
        (["--length", 3, "--prompt", "the badger found"], 2, "'the badger found' has 3 tokens"),
        (["--prompts", "/nowhere"], 2, "--prompts /nowhere: cannot be read"),
        (["--sampler", "ancestral:"], 2, "'ancestral:': expected a name"),
        (["--sampler", "ancestral:eta=2"], 3, "less than or equal to 1"),
        (["--exit", "entropi:threshold=1"], 3, "did you mean 'entropy'"),
        (["--guidance", "clamped:above=1"], 3, "unknown key; there are below"),
        (["--grid", "fitted:path=/nowhere.json"], 5, "grid fitted: /nowhere.json cannot be read"),
        (["--set", "sampler.use=eulr"], 3, "did you mean 'euler'"),
        (["--set", "sampler.with.eat=3"], 3, "unknown key; there are eta"),
        (["--set", "sampler.use=absent:euler"], 4, "no plugin named 'absent'"),
        (["-n", 2**20 + 1], 2, "less than or equal to 1048576"),
        (["-n", 2**20, "--prompt", "the", "--prompt", "the"], 2, "the number of texts is 2097152"),
        (["--steps", 10**12], 2, "less than or equal to 1048576"),
        (["--batch-size", 10**12], 2, "less than or equal to 1048576"),
        (["--offset", -1], 2, "greater than or equal to 0"),
        (
            ["--offset", 2**63 - 1, "-n", 2],
            2,
            "index of the last text is 9223372036854775808; expected an integer",
        ),
        (
            ["--prompt", "the xylophone found \u2603"],
            2,
            "'the xylophone found \u2603' holds 'xylophone', '\u2603', which this model's "
            "tokenizer does not know: leave it out or write it otherwise; it knows the words '",
        ),
        (["--infill", "the gnu ___ ."], 2, "holds 'gnu', which"),
        (["--prompt", "the \udcff"], 2, "'the \\udcff' is no text: its character 5 is half of"),
    ],
)
def test_bad_words_are_refused_in_one_message(sample, options, code, message):
    found, out, err = sample(*options)
    assert (found, out) == (code, "")
    assert message in " ".join(err.split())
    assert "Traceback" not in err


def test_models_that_are_not_there(sample, tmp_path, trained, monkeypatch):
    code, _, err = sample(model="nowhere")
    assert (code, err.partition(";")[0]) == (3, "error: there is no model 'nowhere'")
    assert err.endswith(
        "and no folder has that name; train one by 'dlmkit train RECIPE' and name its folder\n"
    )
    code, _, err = sample(model="")
    assert (code, err) == (2, "error: the name of the model is empty\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, _, err = sample(model="someone/gpt2")
    assert (code, "someone/gpt2 cannot be fetched" in err) == (5, True)
    assert "carry the model's folder here and name it" in err
    assert f"of the runs in it ({trained.name}), name one" in sample(model=trained.parent)[2]
    assert sample(model=tmp_path)[::2] == (6, f"error: {tmp_path} holds no checkpoint\n")
    file = trained / "checkpoints" / "step-00000004" / "recipe.yaml"
    assert sample(model=file)[0] == 2


@pytest.mark.parametrize(
    "name", ["ema.safetensors", "model.safetensors", "recipe.yaml", "tokenizer.json"]
)
def test_a_flipped_byte_is_noticed(sample, copy, name):
    file = copy / "checkpoints" / "step-00000004" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    code, out, err = sample(model=copy)
    assert (code, out) == (6, "")
    assert f"{file} has been altered" in err
    assert "step-00000002" in err, "it offers the one before"


def test_a_truncated_and_a_missing_file_are_noticed(sample, copy):
    folder = copy / "checkpoints" / "step-00000004"
    weights = folder / "ema.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert sample(model=copy)[0] == 6
    weights.unlink()
    code, _, err = sample(model=folder)
    assert (code, f"{weights} is missing" in err) == (6, True)


def test_from_python(trained):
    model = dlmkit.load(str(trained))
    drawn = model.sample(n=3, seed=0, batch_size=2)
    assert [text.index for text in drawn] == [0, 1, 2]
    assert [str(text) for text in drawn] == [text.text for text in model.sample(n=3)]
    assert not model.assembly.objective.training
    assert str(model.sample(n=1, prompt="the badger")[0]).startswith("the badger ")
    euler = dlmkit.load(str(trained), "sampler.use=euler").sample(n=3)
    assert [text.text for text in euler] != [text.text for text in drawn]
    for error, call in (
        (UsageError, lambda: model.sample(n=0)),
        (UsageError, lambda: model.sample(n=1, steps=0)),
        (UsageError, lambda: model.sample(n=1, prompt="xylophone")),
        (RecipeError, lambda: dlmkit.load("nowhere")),
        (CheckpointError, lambda: dlmkit.load(str(trained.parent))),
    ):
        with pytest.raises(error):
            call()


def test_importing_dlmkit_imports_no_torch():
    code = "import dlmkit, sys; dlmkit.load; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


SHARED_OUT = """
import json, sys
import dlmkit
from dlmkit.training.parallel import world

with world() as processes:
    model = dlmkit.load(sys.argv[1])
    texts = model.sample(n=5, batch_size=2, world=processes) + model.sample(n=1, world=processes)
if processes.first:
    print(json.dumps([[text.index, text.text, text.steps] for text in texts]))
"""


def torchrun(*words):
    """stdout of two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    done = subprocess.run(
        [*map(str, (*command, *words))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_processes_share_the_texts_out(trained, sample, tmp_path):
    """The command and the Python API give what one process gives, in order, once."""
    exits = ("--sampler", "dpm-2m", "--exit", "entropy:threshold=3.6", "-n", 5, "--json")
    alone = sample("--batch-size", 2, *exits)[1]
    assert torchrun("-m", "dlmkit", "sample", trained, "--batch-size", 2, *exits) == alone
    script = tmp_path / "shared_out.py"
    script.write_text(SHARED_OUT)
    model = dlmkit.load(str(trained))
    expected = [[t.index, t.text, t.steps] for t in model.sample(n=5) + model.sample(n=1)]
    assert json.loads(torchrun(script, trained)) == expected  # and with fewer texts than processes
