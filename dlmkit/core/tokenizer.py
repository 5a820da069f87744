"""The tokenizer of a run: a `tokenizers` pipeline, saved with the run as one JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tokenizers

from dlmkit.errors import DataError

FILE = "tokenizer.json"
PAD = "<pad>"
UNKNOWN = "<unk>"


class Tokenizer:
    """Text to ids and back. ``vocab_size`` is V; ``pad_id`` fills padded positions."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        pad_id = backend.token_to_id(PAD)
        if pad_id is None:
            raise DataError(f"the tokenizer has no {PAD} token, which padded positions need")
        # otherwise a text that spells "<pad>" would be read as the token
        backend.encode_special_tokens = True
        self.backend = backend
        self.pad_id: int = pad_id
        self.unknown_id: int | None = backend.token_to_id(UNKNOWN)
        self.vocab_size: int = backend.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``. Raises DataError if some of it is outside the vocabulary."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        if self.unknown_id is not None and self.unknown_id in ids:
            raise DataError(
                f"{text!r} holds characters that this model's tokenizer does not know; "
                f"its vocabulary has {self.vocab_size} tokens"
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens left out."""
        text: str = self.backend.decode(list(ids), skip_special_tokens=True)
        return text

    def pieces(self) -> list[str]:
        """The vocabulary in order of id. Raises DataError if some id has no token."""
        pieces = [self.backend.id_to_token(i) for i in range(self.vocab_size)]
        if None in pieces:
            raise DataError(f"the tokenizer has no token for id {pieces.index(None)}")
        return [piece for piece in pieces if piece is not None]

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` into ``folder``."""
        self.backend.save(str(folder / FILE))

    @staticmethod
    def load(folder: Path) -> Tokenizer:
        """Read ``tokenizer.json`` of ``folder``; raises DataError if it is missing or broken."""
        path = folder / FILE
        if not path.is_file():
            raise DataError(f"{folder} holds no {FILE}")
        try:
            return Tokenizer(tokenizers.Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception for every fault
            raise DataError(f"{path} is not a tokenizer: {error}") from error
