"""No model, tokenizer or judge of transformers brings code along, nor does anybody ask for it."""

import ast
import json
from pathlib import Path

import pytest

from dlmkit.core.context import BuildContext
from dlmkit.errors import DataError
from dlmkit_hf import configs as hf
from dlmkit_hf import pretrained
from dlmkit_metrics import configs as metrics
from dlmkit_metrics.pretrained import load
from dlmkit_text import vocabulary
from dlmkit_text.configs import TextTokens

ROOT = Path(__file__).parent.parent


def calls(tree):
    """The calls in ``tree`` by which transformers builds what a folder or a hub describes."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="from_pretrained" | "from_config")):
                yield node


def test_every_call_that_could_run_a_models_code_refuses_it():
    found = 0
    for folder in ("dlmkit", "plugins", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for call in calls(ast.parse(path.read_text(encoding="utf-8"))):
                given = {word.arg: word.value for word in call.keywords}
                value = given.get("trust_remote_code")
                where = f"{path}:{call.lineno}"
                assert isinstance(value, ast.Constant), where
                assert value.value is False, where
                found += 1
    assert found >= 8


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A folder whose model and tokenizer are code of its own; whoever is asked says yes."""
    ran = tmp_path / "ran"
    folder = tmp_path / "model"
    folder.mkdir()
    names = {
        "AutoConfig": "own.Config",
        "AutoModel": "own.Model",
        "AutoModelForCausalLM": "own.Model",
        "AutoModelForMaskedLM": "own.Model",
        "AutoTokenizer": ["own.Tokenizer", None],
    }
    config = {"model_type": "strange", "auto_map": names, "tokenizer_class": "Strange"}
    for name in ("config.json", "tokenizer_config.json"):
        (folder / name).write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\nConfig = Model = Tokenizer = dict\n")
    asked = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")
    yield folder
    assert not ran.exists()
    assert asked == []


def test_an_encoder(hostile):
    with pytest.raises(DataError, match=str(hostile)):
        pretrained.encoder(hf.HfEncoder(name=str(hostile)), BuildContext(length=8))
    with pytest.raises(DataError, match=str(hostile)):
        pretrained.words(hf.WordEmbeddings(name=str(hostile)), BuildContext(length=8))


def test_a_tokenizer(hostile):
    with pytest.raises(DataError, match=str(hostile)):
        vocabulary.pretrained(str(hostile), TextTokens(kind="pretrained", name=str(hostile)))


@pytest.mark.parametrize("auto", ["AutoModel", "AutoModelForCausalLM"])
def test_a_judge(hostile, auto):
    config = metrics.ArNll(judge=str(hostile))
    with pytest.raises(DataError, match=str(hostile)):
        load(str(hostile), "judge", auto, config)
