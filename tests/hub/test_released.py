"""Released models by their names on the hub, over HTTP, and without a connection."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dlmkit.cli.app import main

GOLDEN = Path(__file__).parent.parent / "golden"
DRAWN = ["-n", "1", "--length", "8", "--steps", "3"]
REPO = "someone/llada"


@pytest.fixture
def llada(tmp_path):
    """LLaDA's golden folder with a tokenizer."""
    import tokenizers
    from tokenizers import models, pre_tokenizers

    folder = Path(shutil.copytree(GOLDEN / "llada", tmp_path / "llada"))
    words = tokenizers.Tokenizer(models.WordLevel({f"w{i}": i for i in range(119)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "w116"}))
    return folder


@pytest.fixture
def asked(hub, monkeypatch):
    """The files that were asked for of the hub."""
    handler, names = hub.RequestHandlerClass, []
    file = handler.file

    def noted(self, repo, revision, path):
        if self.command == "GET":
            names.append(path)
        return file(self, repo, revision, path)

    monkeypatch.setattr(handler, "file", noted)
    return names


def test_a_name_is_fetched_once_and_drawn_from(hub, llada, asked, capsys, monkeypatch):
    hub.put(REPO, llada)
    hub.files[REPO]["main"]["modeling_llada.py"] = b"raise SystemExit('code of a stranger ran')"
    assert main(["sample", REPO, *DRAWN]) == 0
    first = capsys.readouterr().out
    assert "model.safetensors" in asked
    assert "modeling_llada.py" not in asked
    count = len(asked)
    assert main(["sample", f"{REPO}@main", *DRAWN]) == 0
    assert capsys.readouterr().out == first
    assert len(asked) == count
    assert main(["sample", str(llada), *DRAWN]) == 0
    assert capsys.readouterr().out == first


def test_pickles_alone_are_refused_before_they_are_fetched(hub, llada, asked, capsys, tmp_path):
    torch.save(load_file(llada / "model.safetensors"), llada / "pytorch_model.bin")
    (llada / "model.safetensors").unlink()
    hub.put(REPO, llada)
    assert main(["sample", REPO, *DRAWN]) == 6
    assert f"'dlmkit import --pickled {REPO} --out DIR'" in capsys.readouterr().err
    assert asked == []
    assert main(["import", "--pickled", REPO, "--out", str(tmp_path / "ours")]) == 0
    assert main(["sample", str(tmp_path / "ours"), *DRAWN]) == 0


def test_a_revision_that_is_not_there_is_named(hub, llada, capsys):
    hub.put(REPO, llada)
    assert main(["sample", f"{REPO}@nowhere", *DRAWN]) == 5
    assert (
        f"{REPO} cannot be fetched: the hub says RevisionNotFoundError" in capsys.readouterr().err
    )


def test_without_a_connection_the_cache_serves_or_the_message_says_what_to_do(
    hub, llada, capsys, monkeypatch
):
    from huggingface_hub import constants

    hub.put(REPO, llada)
    assert main(["sample", REPO, *DRAWN]) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["sample", REPO, *DRAWN]) == 0
    assert capsys.readouterr().out == first
    assert main(["sample", "someone/else", *DRAWN]) == 5
    err = capsys.readouterr().err
    assert "someone/else cannot be fetched: the hub cannot be reached" in err
    assert "carry the model's folder here and name it" in err
