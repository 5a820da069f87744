"""Caches against none on a made-up network with random weights, one thread: speed, not text.

    OMP_NUM_THREADS=1 python benchmarks/caches.py [--attention block|full] [--length 512]

``block`` attends block by block, as BD3-LM's does, for the exact cache; ``full`` is MDLM's, for
prefix, dual and delayed. What is printed is that of `dlmkit bench sampler --cache`.
"""

from __future__ import annotations

import argparse

from torch import nn

import dlmkit
from dlmkit.bench import caches
from dlmkit.model import Model


def made(asked: argparse.Namespace) -> Model:
    block = asked.attention == "block"
    window = {"window": asked.window, "window_from": "row" if block else "text"}
    model = dlmkit.compose(
        length=asked.length,
        data="grammar:grammar",
        schedule="mdlm:log-linear",
        space={"use": "mdlm:tokens", "with": {"dim": asked.width}},
        network={
            "use": "released:dit",
            "with": {
                "blocks": asked.layers,
                "heads": asked.width // 64,
                "time": False,
                "block": asked.window if block else None,
            },
        },
        masking="cdcd:none",
        objective="mdlm:nelbo",
        sampler={"use": "masked:decoder", "with": {**window, "order": {"use": "masked:random"}}},
        grid="samplers:linear",
        train={"steps": 1},
    )
    for weight in model.assembly.network.parameters():
        if weight.ndim > 1:  # the head of a fresh network is zero: it would predict nothing
            nn.init.normal_(weight, std=0.05)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attention", choices=("block", "full"), default="block")
    parser.add_argument("--batches", default="1")
    for name, value in (("length", 512), ("window", 16), ("steps", 64), ("given", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    for name, value in (("width", 256), ("layers", 6), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    batches = tuple(map(int, asked.batches.split(",")))
    plan = caches.CachePlan(batches, asked.given, asked.steps, asked.rounds)
    for line in caches.lines(caches.run(made(asked), f"made up, {asked.attention}", plan, print)):
        print(line)


if __name__ == "__main__":
    main()
