"""What `--out` and `--resume` refuse, and what a resume may change."""

import shutil

import pytest
from training_runs import dlmkit, saved_steps

from dlmkit.training.checkpoint import checkpoint_name


@pytest.fixture(scope="module")
def half(tiny, tmp_path_factory):
    """A run that stopped at step 4 of 8; nobody writes to it."""
    run = tmp_path_factory.mktemp("start") / "half"
    assert dlmkit("train", tiny, "--out", run, "--set", "train.stop_after=4") == 0
    return run


@pytest.fixture
def run(half, tmp_path):
    """A copy of it."""
    shutil.copytree(half, tmp_path / "run")
    return tmp_path / "run"


def refused(capsys, code, *arguments) -> str:
    assert dlmkit("train", *arguments) == code
    return capsys.readouterr().err


def test_an_existing_run_is_refused_and_left_alone(tiny, run, capsys):
    before = sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*"))
    message = refused(capsys, 2, tiny, "--out", run)
    assert "--resume auto" in message
    assert "--out DIR" in message
    assert sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*")) == before


def test_the_default_folder_is_named_after_the_recipe(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert dlmkit("train", tiny, "--set", "train.steps=1") == 0
    assert saved_steps(tmp_path / "runs" / "tiny") == [1]
    assert "runs/tiny is not empty" in refused(capsys, 2, tiny)


def test_a_folder_that_is_no_run_is_never_taken(tiny, tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("dear")
    assert "is not empty" in refused(capsys, 2, tiny, "--out", tmp_path)
    assert "holds no run" in refused(capsys, 2, tiny, "--out", tmp_path, "--resume", "auto")
    file = tmp_path / "letter.txt"
    assert "is a file" in refused(capsys, 2, tiny, "--out", file)
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("train.learning_rate=0.5", "train.learning_rate: 0.001 -> 0.5"),
        ("train.steps=9", "train.steps: 8 -> 9"),
        ("seed=1", "seed: 0 -> 1"),
        ("train.threads=2", "train.threads: 1 -> 2"),
        ("space.with.dim=16", "space.with.dim: 8 -> 16"),
        ("sampler.use=euler", "sampler.use: samplers:ancestral -> samplers:euler"),
    ],
)
def test_another_recipe_is_refused_with_a_diff(tiny, run, capsys, change, line):
    if change.startswith("train.learning"):
        line = line.replace("0.001", "0.003")
    message = refused(capsys, 2, tiny, "--out", run, "--resume", "auto", "--set", change)
    assert line in message
    assert "a resume may change only" in message
    assert saved_steps(run) == [2, 4]


@pytest.mark.parametrize(
    "change",
    [
        "train.stop_after=5", "train.checkpoint_every=1", "train.keep_last=9", "train.log_every=1",
        "train.validate_every=3", "train.validation_rows=3", "train.sample_every=2",
        "sample.count=1", "sample.steps=2", "summary=other",
    ],
)  # fmt: skip
def test_what_cannot_change_the_weights_may_change(tiny, run, change):
    arguments = ("--set", "train.stop_after=5", "--set", change)
    assert dlmkit("train", tiny, "--out", run, "--resume", "auto", *arguments) == 0
    assert saved_steps(run)[-1] == 5


def test_a_resume_names_where_nothing_is(tiny, tmp_path, capsys):
    assert "no such run" in refused(capsys, 2, tiny, "--resume", tmp_path / "none")
    assert "holds no checkpoint" in refused(capsys, 6, tiny, "--resume", tmp_path)


def test_damage_is_refused_and_the_one_that_is_offered_works(tiny, run, capsys):
    newest, earlier = (run / "checkpoints" / checkpoint_name(step) for step in (4, 2))
    with (newest / "model.safetensors").open("r+b") as file:
        file.seek(900)
        byte = file.read(1)
        file.seek(900)
        file.write(bytes([byte[0] ^ 1]))
    for reference in ("auto", run, newest):
        message = refused(capsys, 6, tiny, "--out", run, "--resume", reference)
        assert f"{newest}/model.safetensors has been altered" in message
        assert str(earlier) in message
    assert dlmkit("train", tiny, "--resume", earlier) == 0
    assert "is damaged and now called damaged-step-00000004" in capsys.readouterr().err
    assert saved_steps(run)[-1] == 8


def test_a_run_is_not_taken_back_behind_a_whole_checkpoint(tiny, run, capsys):
    earlier = run / "checkpoints" / checkpoint_name(2)
    message = refused(capsys, 2, tiny, "--resume", earlier)
    assert f"--resume {run}" in message
    assert f"--resume {earlier} --out ANOTHER" in message


def test_a_checkpoint_that_left_its_run_can_be_gone_on_from(tiny, run, tmp_path):
    alone = tmp_path / checkpoint_name(4)
    shutil.copytree(run / "checkpoints" / checkpoint_name(4), alone)
    assert dlmkit("train", tiny, "--resume", alone, "--out", tmp_path / "on") == 0
    assert saved_steps(tmp_path / "on") == [6, 8]


def test_a_checkpoint_of_another_model_is_refused(tiny, run, tmp_path, capsys):
    """The recipe is the same, the tensors are not: code has changed underneath."""
    from dlmkit.training.checkpoint import publish, remove

    old = run / "checkpoints" / checkpoint_name(4)
    kept = {p.relative_to(old): p.read_bytes() for p in old.rglob("*") if p.is_file()}
    from safetensors.torch import load, save

    tensors = load(kept[next(name for name in kept if name.name == "model.safetensors")])
    tensors["space.extra"] = tensors.pop("space.weight")

    def write(folder):
        for name, content in kept.items():
            if name.name != "manifest.json":
                (folder / name).parent.mkdir(exist_ok=True)
                content = save(tensors) if name.name == "model.safetensors" else content
                (folder / name).write_bytes(content)

    remove(old)
    publish(run / "checkpoints", 4, write)
    message = refused(capsys, 6, tiny, "--resume", run)
    assert "is not of this recipe's model" in message
    assert "space.extra, space.weight" in message
