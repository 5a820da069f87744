"""What tests share: of text data, real shards and a cache of their own; of decoders, sizes."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "make_c4_shards.py"
WORDS = ("the", "old", "harbour", "kept", "its", "lamps", "alight", "for", "Anna's", "boats")

DECODER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
"""Sizes that any decoder of transformers takes."""
LLAMA = {"model_type": "llama", **DECODER}


def documents(count: int, longest: int = 14) -> list[str]:
    """Different documents of 4 to ``longest`` words, one of three lines long."""
    return [
        " ".join(WORDS[(i * k + k * k + i // 7) % len(WORDS)] for k in range(4 + i % (longest - 3)))
        + f" no. {i}.{chr(10) * (i % 3 == 0)}The end"
        for i in range(count)
    ]


@pytest.fixture
def texts() -> Callable[..., list[str]]:
    return documents


@pytest.fixture
def write_shards() -> Callable[[Path, Sequence[str], str, int], list[Path]]:
    """The writer of C4-format shards that the benchmarks use."""
    spec = importlib.util.spec_from_file_location("make_c4_shards", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_shards


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DLMKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
