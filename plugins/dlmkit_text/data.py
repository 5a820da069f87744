"""The data components: a source of documents, packed into rows of the recipe's length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.objective import Batch
from dlmkit.errors import DataError
from dlmkit_text import corpus, packing, sources
from dlmkit_text.configs import KingJames, Reviews, Source, TextFiles


class PackedText(Data):
    """Documents packed end to end, a newline after each, cut into full rows.

    A row starts anywhere in a document. :meth:`texts` gives documents as the tokenizer sees
    them, so that ``tokenizer.decode(tokenizer.encode(text)) == text``.
    """

    def __init__(
        self, documents: Sequence[str], options: Source, context: BuildContext, name: str
    ) -> None:
        self.corpus = corpus.build(documents, options, name, context.folder)
        self.tokenizer = self.corpus.tokenizer
        self.length = context.length
        for split, needed in (("train", 2 * self.length - 1), ("validation", self.length)):
            if (held := len(self.corpus.ids[split])) < needed:
                raise DataError(
                    f"{name}: the {split} split has {held} tokens, and rows of {self.length} "
                    f"need at least {needed}; give more text or lower length"
                )

    def stream(self, seed: int, batch_size: int) -> packing.PackedStream:
        return packing.PackedStream(self.corpus.ids["train"], self.length, seed, batch_size)

    def validation(self, count: int) -> Batch:
        ids = self.corpus.ids["validation"]
        return packing.batch(ids, packing.spread(ids, self.length, count), self.length)

    def texts(self, split: str) -> Iterator[str]:
        if split not in self.corpus.text:
            raise DataError(f"there is no split {split!r}; there are {list(self.corpus.text)}")
        return iter(self.corpus.text[split].split("\n"))


def kjv(config: KingJames, context: BuildContext) -> PackedText:
    """The King James Bible."""
    return PackedText(sources.king_james(), config, context, "the King James Bible")


def reviews(config: Reviews, context: BuildContext) -> PackedText:
    """Film reviews."""
    return PackedText(sources.reviews(), config, context, "the film reviews")


def text(config: TextFiles, context: BuildContext) -> PackedText:
    """Local files."""
    documents = sources.text_files(config.paths, config.document)
    return PackedText(documents, config, context, ", ".join(map(str, config.paths)))
