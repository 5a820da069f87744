"""A decoder here against transformers' own: its logits, and the time of a forward pass.

    python benchmarks/decoder.py FOLDER [--rows 2] [--length 128] [--rounds 15] [--threads 1]

FOLDER holds a causal model of transformers, such as SmolLM2-135M. Both are built from it in fp32,
`hf:decoder` with `attention: causal`. Rounds take turns, so that whatever else the machine does
slows both; the ratio is that of the medians. Exit code 1: logits differ by more than 1e-4, or the
forward takes more than 1.05 times transformers' own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.network import Conditioning
from dlmkit.core.options import Tokens
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import TokenSpace
from dlmkit_hf.configs import HfDecoder as Options
from dlmkit_hf.models import HfDecoder

CLOSE, SLOWER = 1e-4, 1.05


def built(folder: Path, length: int) -> tuple[HfDecoder, TokenSpace]:
    """The decoder in ``folder`` as a score network, and its space of tokens."""
    config = json.loads((folder / "config.json").read_text())
    size = config["vocab_size"]
    options = Tokens(dim=config["hidden_size"], size=size)
    space = TokenSpace(options, BuildContext(length, vocab_size=size))
    context = BuildContext(length, vocab_size=size, parts={"space": space})
    tied = bool(config.get("tie_word_embeddings"))
    network = HfDecoder(Options(name=str(folder), attention="causal", tied=tied), context)
    network.probe()
    return network.eval(), space


def timed(run: Callable[[], Any]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(
        given.folder, dtype=torch.float32, trust_remote_code=False
    ).eval()
    network, space = built(given.folder, given.length)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(space.vocab_size, (given.rows, given.length), generator=generator)
    attend = torch.ones_like(ids, dtype=torch.bool)
    nothing = torch.zeros_like(attend)
    level = Level(torch.zeros(given.rows), torch.ones(given.rows))

    def ours() -> torch.Tensor:
        x = space.table(ids)
        query: torch.Tensor = network(x, level, Conditioning.of(x, nothing, attend), x)
        return query

    def reference() -> torch.Tensor:
        logits: torch.Tensor = theirs(input_ids=ids, attention_mask=attend.long()).logits
        return logits

    with torch.inference_mode():
        apart = float((ours() - reference()).abs().max())
        seconds: list[tuple[float, float]] = []
        for turn in range(given.rounds):
            pair = (ours, reference) if turn % 2 else (reference, ours)
            taken = {run: timed(run) for run in pair}
            seconds.append((taken[ours], taken[reference]))
    mine, other = (statistics.median(column) for column in zip(*seconds, strict=True))
    ratio = mine / other
    print(f"logits of {given.rows} x {given.length} tokens differ by at most {apart:.1e}")
    print(f"forward: {mine:.3f} s here, {other:.3f} s in transformers; ratio {ratio:.3f}")
    return int(apart > CLOSE or ratio > SLOWER)


if __name__ == "__main__":
    sys.exit(main())
