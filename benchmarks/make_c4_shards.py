"""Write C4-format shards from text lines: gzip files of JSON lines, called as C4's are.

python benchmarks/make_c4_shards.py OUT --reviews             # the extra demo's film reviews
python benchmarks/make_c4_shards.py OUT --shards 8 lines.txt  # a document a line

dlmkit train recipes/ddlm_c4.yaml --set data.with.path=OUT
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Sequence
from pathlib import Path


def write_shards(folder: Path, documents: Sequence[str], split: str, shards: int) -> list[Path]:
    """``documents`` dealt to ``shards`` files of ``split`` in ``folder``, which are returned."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"c4-{split}.{i:05d}-of-{shards:05d}.json.gz" for i in range(shards)]
    for i, path in enumerate(paths):
        with path.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
            for text in documents[i::shards]:
                row = {"text": text, "timestamp": "2019-04-25T12:57:54Z", "url": ""}
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("lines", type=Path, nargs="*", help="UTF-8 files, a document a line")
    parser.add_argument("--reviews", action="store_true", help="add the 25,000 film reviews")
    parser.add_argument("--shards", type=int, default=8, help="training shards")
    parser.add_argument("--validation", type=float, default=0.02, help="share in its one shard")
    asked = parser.parse_args()

    from dlmkit_text import sources

    documents = sources.text_files(asked.lines, "line") + (sources.reviews() * asked.reviews)
    held_out = [text for text in documents if sources.held_out(text, asked.validation)]
    train = [text for text in documents if not sources.held_out(text, asked.validation)]
    if len(train) < asked.shards or not held_out:
        parser.error(f"{len(documents)} documents are too few for {asked.shards} shards")
    for path in (
        *write_shards(asked.out, train, "train", asked.shards),
        *write_shards(asked.out, held_out, "validation", 1),
    ):
        print(path)


if __name__ == "__main__":
    main()
