"""The exact cache of finished blocks against no cache, side by side in one run.

    python benchmarks/block_cache.py [--length 512] [--block 16] [--steps 64] [--batch 1]

A made-up network of BD3-LM's kind with random weights: what is measured is the sampling loop, not a
text. Both draw the same texts; that is checked. Prints processor seconds of each, in turns, and
their ratio: with one thread (OMP_NUM_THREADS=1) they do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import statistics
import time

import dlmkit
from dlmkit.model import Model, Run


def made(length: int, block: int, width: int, blocks: int) -> Model:
    return dlmkit.compose(
        length=length,
        data="grammar:grammar",
        schedule="mdlm:log-linear",
        space={"use": "mdlm:tokens", "with": {"dim": width}},
        network={
            "use": "released:dit",
            "with": {"blocks": blocks, "heads": width // 64, "block": block},
        },
        masking="cdcd:none",
        objective="mdlm:nelbo",
        sampler={"use": "mdlm:unmasking", "with": {"window": block}},
        grid="samplers:linear",
        train={"steps": 1},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("length", 512), ("block", 16), ("steps", 64), ("batch", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    plain = made(asked.length, asked.block, asked.width, asked.layers)
    kept = plain.with_("sample.cache=exact")
    run = Run(0, asked.steps, asked.batch)
    ratios = []
    for turn in range(asked.turns):
        seconds, texts = [], []
        for model in (plain, kept):
            start = time.process_time()
            texts.append(model.run(model.requests(asked.batch), run))
            seconds.append(time.process_time() - start)
        if [sample.ids for sample in texts[0]] != [sample.ids for sample in texts[1]]:
            raise SystemExit("the texts differ: the cache is not exact")
        ratios.append(seconds[0] / seconds[1])
        print(
            f"turn {turn}: none {seconds[0]:.2f} s, exact {seconds[1]:.2f} s, "
            f"{texts[0][0].evaluations} evaluations of each text, ratio {ratios[-1]:.1f}"
        )
    print(f"median ratio {statistics.median(ratios):.1f}")


if __name__ == "__main__":
    main()
