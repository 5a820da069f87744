"""A folder of weights is what its manifest lists, and its weights are numbers."""

import json
import resource
import shutil
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file, save_file
from training_runs import dlmkit

from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import CheckpointError
from dlmkit.training.checkpoint import MANIFEST, _manifest_text, place, publish, verify
from dlmkit.training.state import EMA, MODEL, OPTIMISER


def altered(folder, new, change):
    """A copy of the checkpoint ``folder`` that ``change(copy)`` altered, under a new manifest."""

    def write(work):
        shutil.copytree(folder, work, dirs_exist_ok=True)
        (work / MANIFEST).unlink()
        change(work)

    place(new, int(folder.name[5:]), write)
    return new


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of a tiny model after two steps."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    sets = ("network.with={width: 16, heads: 2, blocks: 1}", "space.with.dim=8", "metric=[]")
    steps = ("train.steps=2", "train.validation_rows=2", "sample.steps=2", "sample.count=1")
    words = [word for override in (*sets, *steps) for word in ("--set", override)]
    assert dlmkit("train", "ddlm_grammar", "--out", run, *words) == 0
    return run / "checkpoints" / "step-00000002"


def spoil(name, value):
    """Puts ``value`` into one place of the last floating tensor of the file ``name``."""

    def change(folder):
        tensors = load_file(folder / name)
        key = max(k for k, t in tensors.items() if t.is_floating_point() and t.ndim)
        tensors[key].view(-1)[-1] = value
        save_file(tensors, folder / name)
        (folder / "which").write_text(key)

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("name", "weights"), [(MODEL, "raw"), (EMA, "ema")])
def test_one_weight_that_is_no_number_is_refused_by_name(
    checkpoint, tmp_path, capsys, name, weights, value
):
    bad = altered(checkpoint, tmp_path / "bad", spoil(name, value))
    assert dlmkit("sample", bad, "-n", 1, "--weights", weights) == 6
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{bad / name}: the tensor {(bad / 'which').read_text()} holds 1 of" in said.err


def test_finite_weights_that_overflow_end_sampling_and_never_become_text(
    checkpoint, tmp_path, capsys
):
    def change(folder):
        tensors = load_file(folder / EMA)
        large = {k: v * 1e30 if v.is_floating_point() else v for k, v in tensors.items()}
        save_file(large, folder / EMA)

    bad = altered(checkpoint, tmp_path / "bad", change)
    capsys.readouterr()
    assert dlmkit("sample", bad, "-n", 2) == 7
    said = capsys.readouterr()
    assert said.out == ""
    assert "is not finite (NaN or infinity), and no text can come of it" in said.err


@pytest.mark.parametrize("name", [MODEL, EMA, OPTIMISER])
def test_a_run_does_not_go_on_from_what_is_no_number(checkpoint, tmp_path, capsys, name):
    run = tmp_path / "run"
    shutil.copytree(checkpoint.parent.parent, run)
    shutil.rmtree(run / "checkpoints" / checkpoint.name)
    altered(checkpoint, run / "checkpoints" / checkpoint.name, spoil(name, float("nan")))
    assert dlmkit("train", run / "recipe.yaml", "--resume", run, "--out", tmp_path / "on") == 6
    assert f"{name}: the tensor " in capsys.readouterr().err


def test_every_door_refuses_weights_that_the_manifest_does_not_list(checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    assert dlmkit("export", checkpoint, out) == 0
    stranger = {k: torch.zeros_like(t) for k, t in load_file(out / MODEL).items()}
    save_file(stranger, out / EMA)
    capsys.readouterr()
    doors = [
        ("sample", out),
        ("export", out, tmp_path / "again"),
        ("eval", out, "-n", 2),
        ("trace", out, "-n", 1, "--out", tmp_path / "trace"),
        ("analyze", out, "--out", tmp_path / "page.html"),
        ("bench", "sampler", out, "--quick"),
    ]
    for words in doors:
        assert dlmkit(*words) == 6, words
        assert "holds ema.safetensors, which its manifest does not vouch for" in (
            capsys.readouterr().err
        ), words


@pytest.mark.parametrize("name", ["encoder.json", "notes.bin", "training/more.json", "X.YAML"])
def test_whatever_could_be_read_must_be_listed(tmp_path, name):
    def write(folder):
        (folder / "model.bin").write_bytes(b"1")

    folder = publish(tmp_path, 1, write)
    verify(folder)
    (folder / "training").mkdir()
    (folder / name).write_text("{}")
    with pytest.raises(CheckpointError, match=f"holds {name}, which its manifest"):
        verify(folder)


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "LICENSE.txt", ".git/config", "a.png"])
def test_cards_pictures_licences_and_hidden_files_may_lie_beside(tmp_path, name):
    folder = publish(tmp_path, 1, lambda folder: (folder / "model.bin").write_bytes(b"1"))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("words")
    verify(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../b", "C:/b", "..\\b", ""])
def test_a_manifest_lists_nothing_outside_its_folder(tmp_path, name):
    (tmp_path / "outside").write_text("")
    (tmp_path / "model").mkdir()
    entry = {"size": 0, "sha256": "0" * 64}
    text = _manifest_text({"format": 1, "step": 1, "files": {name: entry}})
    (tmp_path / "model" / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match="which is no file inside it"):
        verify(tmp_path / "model")


@pytest.mark.parametrize("parent", ["ddlm_grammar", "../secret.yaml", "/dev/zero"])
@pytest.mark.parametrize("how", ["sample", "check"])
def test_the_recipe_of_a_model_extends_nothing(checkpoint, tmp_path, capsys, parent, how):
    def change(folder):
        text = (folder / "recipe.yaml").read_text()
        (folder / "recipe.yaml").write_text(f"extends: {parent}\n{text}")

    bad = altered(checkpoint, tmp_path / "bad", change)
    words = {"sample": ("sample", bad), "check": ("recipe", "check", bad / "recipe.yaml")}
    assert dlmkit(*words[how]) == 3
    assert "recipe.yaml:1:10: extends: the recipe of a model is whole" in capsys.readouterr().err


def test_an_export_carries_no_file_that_a_link_leads_to(checkpoint, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("the password")
    run = tmp_path / "run"
    shutil.copytree(checkpoint.parent.parent, run)
    (run / "curves.png").unlink(missing_ok=True)
    (run / "curves.png").symlink_to(secret)
    assert dlmkit("export", run, tmp_path / "out") == 0
    assert not (tmp_path / "out" / "curves.png").exists()
    (tmp_path / "out" / "README.md").unlink()
    (tmp_path / "out" / "README.md").symlink_to(secret)
    assert dlmkit("export", tmp_path / "out", tmp_path / "again") == 0
    written = [p for p in (tmp_path / "again").iterdir() if not p.is_symlink()]
    assert "README.md" in [p.name for p in written]
    assert all(b"the password" not in p.read_bytes() for p in written)


@pytest.mark.parametrize(
    "package", ["x'; rm -rf ~; '", "--index-url=http://evil/", "a b", 7, "\x1b"]
)
def test_advice_to_install_names_packages_alone(checkpoint, tmp_path, capsys, package):
    def change(folder):
        plugins = [{"name": "acme", "distribution": package, "version": "1.0"}]
        (folder / "environment.json").write_text(json.dumps({"plugins": plugins}))
        text = (folder / "recipe.yaml").read_text()
        (folder / "recipe.yaml").write_text(text.replace("use: cdcd:none", "use: acme:none"))

    bad = altered(checkpoint, tmp_path / "bad", change)
    capsys.readouterr()
    code = dlmkit("sample", bad)
    said = capsys.readouterr().err
    assert code == 4, said
    # what is not even text is no record of a package, and nothing is said of it
    assert ("which is no name and version of a package" in said) == isinstance(package, str)
    assert "pip install" not in said


@contextmanager
def little_room():
    """No file can grow beyond 1,000 bytes, as on a full disk. The test's own output may be one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_an_export_onto_a_full_disk_is_one_message_and_leaves_nothing(checkpoint, tmp_path, capsys):
    with little_room():
        assert dlmkit("export", checkpoint, tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {tmp_path / 'out'} cannot be written: ")
    assert "File too large" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_does_not_fit_says_so_as_any_file(checkpoint, tmp_path):
    with little_room(), pytest.raises(OSError, match="File too large"):
        Tokenizer.load(checkpoint).save(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ("export", "ddlm-mini"),
        ("train", "ddlm_grammar", "--out"),
        ("trace", "ddlm-mini", "-n", 1, "--out"),
        ("recipe", "cp", "ddlm_grammar"),
        ("sample", "ddlm-mini", "--exit-certificate"),
    ],
)
def test_a_place_that_cannot_be_is_one_message(tmp_path, capsys, words):
    (tmp_path / "file").write_text("")
    assert dlmkit(*words, tmp_path / "file" / "inside") == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert str(tmp_path / "file") in err
    assert err.count("\n") == 1
