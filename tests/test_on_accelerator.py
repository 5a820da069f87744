"""No device is special: on a pretend accelerator everything does what it does on the CPU, bit for
bit. Parts by themselves are the kit's matter, which finds them through the registry as well; here
they stand in the loops, behind the commands.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from safetensors.torch import load_file

import dlmkit
from dlmkit.cli.app import app, main
from dlmkit.errors import RecipeError
from dlmkit.kernels import vocabulary
from dlmkit.model import open_model
from dlmkit.recipe.shelf import shipped
from dlmkit.recipe.write import inline
from dlmkit.registry.lookup import Registry
from dlmkit.testing import pretend
from dlmkit.testing.subject import part_of
from dlmkit.training import evaluate

sys.path.insert(0, str(Path(__file__).parent / "training"))
from training_runs import metrics, state

REGISTRY = Registry.load(third_party=False)
SHRINK = [
    "length=12",
    "network.with.width=16",
    "network.with.heads=2",
    "network.with.blocks=2",
    "train.steps=4",
    "train.batch_size=4",
    "train.micro_batch_size=2",
    "train.warmup_steps=1",
    "train.log_every=1",
    "train.checkpoint_every=2",
    "train.keep_last=9",
    "train.validate_every=4",
    "train.validation_rows=3",
    "train.sample_every=4",
    "train.threads=1",
    "train.precision=fp32",
    "sample.count=2",
    "sample.measured=2",
    "sample.steps=3",
]
GRAMMAR = ["data={use: 'grammar:grammar'}", "space.with.dim=8"]  # text is no matter of the device
FEW = "space.with.counts.tokens=20000"  # not two million, where embeddings start from counts
OWN = {
    "ddlm_c4_untied": [*GRAMMAR, "space.with.head_width=8"],
    "ddlm_small": [*GRAMMAR, FEW],
    "elf_grammar": [FEW],
    "ddlm_grammar": ["space.with.dim=8", "train.activation_checkpointing=true"],
}
FAST = ("ddlm_grammar", "mdlm_grammar")
# test-beds have nothing to train, decoders of transformers have sizes of their own, models
# of real text are those of the grammar, two learn from a teacher alone (test_distil.py has them),
# and three of DDLM's have no part that its others do not
RECIPES = [
    recipe.name
    for recipe in shipped(REGISTRY)
    if not (recipe.name.startswith("markov") or recipe.qualified.startswith("tune:"))
    and not recipe.name.endswith("_words")
    and recipe.name not in ("consistency_duo_grammar", "consistency_sflm_grammar")
    and recipe.name not in ("ddlm_c4", "ddlm_medium", "own_text")
]


@pytest.fixture(autouse=True)
def same_forms(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The CPU's own fused form of the vocabulary step rounds otherwise: here both use the other."""
    monkeypatch.setattr(vocabulary, "FUSED", {})
    monkeypatch.setattr(vocabulary, "CHUNK", {})
    vocabulary._chosen.cache_clear()
    yield
    vocabulary._chosen.cache_clear()


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both places count the same ones for the context-free denoiser: half a million take 0.2 s."""
    monkeypatch.setattr(evaluate, "_COUNTED", 20_000)


@pytest.fixture
def both(accelerator: Any, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Runs a command on the CPU and on an accelerator; PLACE in its words is cpu or pretend."""
    del accelerator  # for its setting up

    def run(*words: object) -> list[str]:
        shown = []
        for place in ("cpu", "pretend"):
            device = ["--device", place] if "--device" in words else []
            plain = [str(w).replace("PLACE", place) for w in words if w != "--device"]
            capsys.readouterr()
            code = main([*plain, *device])
            out, err = capsys.readouterr()
            assert code == 0, err
            shown.append(out.replace("pretend:0 (computes on the CPU)", "cpu"))
        return shown

    return run


def _sets(words: list[str]) -> list[str]:
    return [part for word in words for part in ("--set", word)]


def _run(recipe: str, out: Path, words: list[str], *more: str) -> dict[str, Any]:
    assert main(["train", recipe, "--out", str(out), *_sets(words), *more]) == 0
    found = state(out, 4)
    found["metrics"] = metrics(out)
    found["texts"] = [path.read_text() for path in sorted((out / "samples").iterdir())]
    return found


@pytest.mark.parametrize(
    "recipe", [pytest.param(r, marks=() if r in FAST else pytest.mark.slow) for r in RECIPES]
)
def test_a_recipe_trains_validates_samples_and_resumes_as_on_the_cpu(recipe: str, tmp_path: Path):
    words = [*SHRINK, *OWN.get(recipe, [])]
    pretend.set_up()
    expected = _run(recipe, tmp_path / "cpu", words)
    with pretend.accelerator():
        assert _run(recipe, tmp_path / "there", words) == expected
        half = tmp_path / "half"
        stop = ["--set", "train.stop_after=2"]
        assert main(["train", recipe, "--out", str(half), *_sets(words), *stop]) == 0
        resumed = _run(recipe, half, words, "--resume", "auto")
    assert resumed["metrics"] == expected["metrics"]
    assert {k: v for k, v in resumed.items() if k.startswith("model")} == {
        k: v for k, v in expected.items() if k.startswith("model")
    }


CPUS_CASTS = """addmm baddbmm bmm cat kl_div linear matmul mm mse_loss nll_loss prod
scaled_dot_product_attention stack"""
"""Those of CUDA's that the CPU's autocast has too, of the operations that are met here."""


@pytest.mark.parametrize(
    "recipe", [pytest.param(r, marks=() if r in FAST else pytest.mark.slow) for r in RECIPES]
)
def test_in_bf16_nothing_but_cudas_casts_sets_it_apart(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bf16 = ["train.precision=bf16", "train.sample_every=99", "train.activation_checkpointing=true"]
    words = _sets([*SHRINK, *OWN.get(recipe, []), *bf16, "train.steps=2"])
    casts = {name: rule for name, rule in pretend.CASTS.items() if name[6:] in CPUS_CASTS.split()}

    def run(name: str) -> dict[str, Any]:
        assert main(["train", recipe, "--out", str(tmp_path / name), *words]) == 0
        return {"metrics": metrics(tmp_path / name), **state(tmp_path / name, 2)}

    expected = run("cpu")
    with pretend.accelerator():
        there = run("there")
        assert there["metrics"] != expected["metrics"]
        monkeypatch.setattr(pretend, "CASTS", casts)
        assert run("with the CPU's casts") == expected
    losses = ([line["loss"] for line in r["metrics"] if "loss" in line] for r in (expected, there))
    assert next(losses) == pytest.approx(next(losses), rel=0.02)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps on the CPU."""
    pretend.set_up()
    out = tmp_path_factory.mktemp("runs") / "grammar"
    assert main(["train", "ddlm_grammar", "--out", str(out), *_sets([*SHRINK, GRAMMAR[1]])]) == 0
    return out


LAX = ("--epsilon", 0.9, "--delta", 0.5)
GOLDEN = Path(__file__).parent / "golden" / "sedd"
COMMANDS: dict[str, tuple[object, ...]] = {
    "sample": ("sample", "RUN", "-n", 5, "--batch-size", 2),
    "sample, prompts": ("sample", "RUN", "-n", 3, "--prompt", "the lamp"),
    "sample, gaps": ("sample", "RUN", "-n", 2, "--infill", "the ___ ."),
    "sample, exits": ("sample", "RUN", "-n", 3, "--exit", "entropy:threshold=4.9"),
    "eval": ("eval", "RUN", "-n", 8, "--json"),
    "eval, bound": ("eval", "RUN", "-n", 8, "--json", "--likelihood", "bound"),
    "eval, flow": ("eval", "RUN", "-n", 8, "--json", "--likelihood", "flow:steps=4"),
    "perplexity": ("perplexity", "RUN", "TEXT", "--draws", 4, "--json"),
    "perplexity, masked": ("perplexity", "markov_masked", "TEXT", "--draws", 4, "--json"),
    "exit quota": ("exit", "quota", "markov_masked", "-n", 20, "--thresholds", 0.3, *LAX, "--json"),
    "models verify": ("models", "verify", GOLDEN, "--json"),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_command_prints_what_it_prints_on_the_cpu(
    words: tuple[object, ...], both: Callable[..., list[str]], trained: Path, tmp_path: Path
):
    (tmp_path / "a.txt").write_text("w00 w01 w02 w00" if "markov_masked" in words else "the lamp .")
    places = {"RUN": trained, "TEXT": tmp_path / "a.txt"}
    here, there = both(*(places.get(str(word), word) for word in words), "--device")
    if "--json" in words:
        here, there = (_figures(text) for text in (here, there))
    assert here == there


def _figures(text: str) -> dict[str, Any]:
    """What a document says of the texts; the rest says where and when they were sampled."""
    document = json.loads(text)
    kept = ("samples", "results", "left_out") if "samples" in document else set(document)
    return {key: document[key] for key in kept if key not in ("device", "sha256", "environment")}


ELSEWHERE = {
    "acceptance measure": "plugins/test_acceptance_measure.py",
    "bench run": "bench/test_plugin_cases.py",
    "glue": "plugins/test_glue.py",
}


def test_every_command_that_takes_a_device_is_run_on_one():
    here = {" ".join(str(word) for word in words) for words in COMMANDS.values()}
    here |= {"trace", "analyze", "bench sampler"}  # by the tests below
    for name, file in ELSEWHERE.items():
        assert "accelerator" in (Path(__file__).parent / file).read_text()
        here.add(name)
    taking = {" ".join(path) for path in taking_a_device(typer.main.get_command(app), ())}
    taking = taking - {"eval model"} | {"eval"}  # MODEL may follow at once
    assert len(taking) > 10
    assert not {name for name in taking if not any(f"{h} ".startswith(f"{name} ") for h in here)}


def taking_a_device(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The paths of the commands with --device."""
    if any("--device" in parameter.opts for parameter in command.params):
        yield path
    context = typer.Context(command)
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from taking_a_device(command.get_command(context, name), (*path, name))


def test_a_trace_and_what_is_calibrated_on_it(both: Any, trained: Path, tmp_path: Path):
    file = tmp_path / "PLACE.safetensors"
    both("trace", trained, "-n", 8, "--out", file, "--device")
    here, there = (load_file(tmp_path / f"{p}.safetensors") for p in ("cpu", "pretend"))
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)
    here, there = both("exit", "calibrate", file, "--rule", "entropy", "--epsilon", 0.9)
    assert here == there


def test_an_export_of_a_model_and_a_dry_run(both: Any, trained: Path, tmp_path: Path):
    both("export", trained, tmp_path / "PLACE", "--license", "mit")
    here, there = (load_file(tmp_path / p / "model.safetensors") for p in ("cpu", "pretend"))
    assert all(torch.equal(here[name], there[name]) for name in here)
    with pretend.accelerator():
        assert main(["train", "ddlm_grammar", "--dry-run", *_sets(SHRINK)]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("analyze", "RUN", "-n", 4, "--checkpoints", "last", "--scales", "1"), "computed on"),
        (("bench", "sampler", "markov", "-n", 8, "--steps", 3, "--rounds", 1), "rounds on"),
    ],
    ids=["analyze", "bench"],
)
def test_what_is_measured_is_measured_on_the_accelerator_and_says_so(
    words: tuple[object, ...],
    said: str,
    accelerator: torch.device,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    name = f"{accelerator} (computes on the CPU)"
    if words[0] == "analyze":
        files = [tmp_path / "a" / "report.html", tmp_path / "a" / "analysis.json"]
        more: tuple[object, ...] = ("--out", tmp_path / "a")
    else:
        files = [tmp_path / "b.html", tmp_path / "b.json"]
        sets = _sets(["length=8", "data.with.tokens=12"])
        more = ("--html", files[0], "--json", files[1], *sets[:2])
    line = [str(trained if word == "RUN" else word) for word in (*words, *more)]
    with pretend.counted() as seen:
        assert main(line) == 0
    assert seen.launches > 100
    assert f"{said} {name}" in " ".join(capsys.readouterr().out.split())
    assert all(name in file.read_text() for file in files)


def _options(kind: str) -> list[str]:
    """The parts of a kind that stand in this recipe, as --set takes them."""
    found = []
    for entry in REGISTRY.components(kind):
        part = part_of(entry)
        found.append(f"{entry.qualified} {inline({'use': part.use, 'with': part.options})}")
    return found


KINDS = {"sampler": "{}", "grid": "{}", "exit": "{}", "freeze": "{}", "guidance": "[{}]"}
PARTS = [
    pytest.param(kind, text.split(" ", 1)[1], id=f"{kind}-{text.split(' ', 1)[0]}")
    for kind in KINDS
    for text in _options("exit" if kind == "freeze" else kind)
]


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_a_part_samples_in_the_loop_what_it_samples_on_the_cpu(
    kind: str, part: str, accelerator: torch.device
):
    word = f"{kind}={KINDS[kind].format(part)}"
    texts = []
    for place in (torch.device("cpu"), accelerator):
        try:
            model = open_model("markov", ["length=6", word], device=place)
        except RecipeError:
            pytest.skip("not in this recipe; its own plugin's recipe samples with it")
        texts.append(model.sample(n=3, steps=4, seed=1))
    assert [(t.text, t.steps, t.halted) for t in texts[0]] == [
        (t.text, t.steps, t.halted) for t in texts[1]
    ]


def test_python_calls_take_a_device(accelerator: torch.device, trained: Path, tmp_path: Path):
    here, there = (dlmkit.load(str(trained), device=place) for place in ("cpu", "pretend"))
    texts = [[text.text for text in model.sample(n=3)] for model in (here, there)]
    assert texts[0] == texts[1]
