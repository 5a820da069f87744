"""Golden folders, and the same with a tokenizer, as the hub has them."""

import json
import shutil
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

GOLDEN = Path(__file__).parent.parent / "golden"
MASKS = {"llada": "<|mdm_mask|>", "dream": "<|mask|>", "a2d-qwen3": "<|mask|>", "sdar": "<|MASK|>"}
MASKS |= {"modernbert": "[MASK]", "llada2-mini": "<|mask|>"}
WITHOUT = ("mdlm", "sedd", "bd3lm", "duo")
"""Those of GPT-2's tokenizer, which has no mask: its row is behind those of the tokens."""


@pytest.fixture
def golden(tmp_path):
    """A copy of a golden folder, to be changed; ``words`` puts a tokenizer into it."""

    def copy(family, words=False):
        folder = Path(shutil.copytree(GOLDEN / family, tmp_path / family))
        if words:
            add_tokenizer(folder)
        return folder

    return copy


def add_tokenizer(folder, mask=True):
    """Words w0, w1, ... as ids, and the special tokens where the model has them."""
    meta = json.loads((folder / "meta.json").read_text())
    last = meta["sizes"]["vocab"] - 1
    end = last - (meta["mask_id"] == last) if meta["pad_id"] is None else meta["pad_id"]
    special = {end: "<|endoftext|>"}
    if mask and meta["family"] in MASKS:
        special[meta["mask_id"]] = MASKS[meta["family"]]
    most = last if meta["mask_id"] is None else max(special)
    words = {f"w{i}": i for i in range(most + 1) if i not in special}
    words |= {token: i for i, token in special.items()}
    backend = tokenizers.Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(list(special.values()))
    backend.save(str(folder / "tokenizer.json"))
    roles = {
        "eos_token": "<|endoftext|>",
        "pad_token": {"content": "<|endoftext|>", "lstrip": False, "special": True},
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))
