"""Models of the toy grammar in few evaluations: each trained on as many tokens, and distilled.

    python benchmarks/few_steps.py --out runs/few                 # plugins/dlmkit_distil/README.md
    python benchmarks/few_steps.py --out runs/grammar --models flm,sflm,elf,langflow,ddlm \\
        --evaluations 8,32                                        # plugins/README.md

Every model is trained by `dlmkit train` at one network, and its moving average sampled by its
recipe's own sampler. A student has the run of its teacher beside it, and comes behind it:
``distilled`` behind ``ddlm``; ``duo-16``, ``duo-8`` and ``duo-4`` behind ``duo``, each a round of
fewer steps; ``flm-distilled`` and ``fmlm`` behind ``flm-posterior``; ``sflm-distilled`` behind
``sflm``. What is in ``--out`` already is not done again. Of each cell: nats per word under a
4-gram judge of the training text (`text:ngram-judge`) with the interval of the mean over texts (two
standard errors), the entropy of all their words (`text:ngram-entropy`), and the share of sentences
that fit a pattern of the grammar (`grammar:grammar`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import mean, stdev

import runs
import torch

from dlmkit.core.context import BuildContext
from dlmkit.model import load_model
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry

TOKENS = 32 * 32  # of a step
POSTERIOR = "space.with.reads=posterior"
MODELS: Mapping[str, tuple[str, ...]] = {
    "ddlm": ("ddlm_grammar",),
    "distilled": ("consistency_grammar", "objective.with.teacher={out}/ddlm"),
    "consistency": ("consistency_grammar",),
    "duo": ("duo_grammar", "sampler.with.greedy_tail=true"),
    **{
        f"duo-{steps}": (
            "consistency_duo_grammar",
            f"objective.with.steps={steps}",
            f"objective.with.teacher={{out}}/{teacher}",
        )
        for steps, teacher in ((16, "duo"), (8, "duo-16"), (4, "duo-8"))
    },
    "langflow": ("langflow_grammar",),
    "flm": ("flm_grammar",),
    "flm-posterior": ("flm_grammar", POSTERIOR),
    "flm-distilled": (
        "consistency_flm_grammar",
        POSTERIOR,
        "objective.with.teacher={out}/flm-posterior",
    ),
    "fmlm": ("fmlm_grammar", POSTERIOR, "objective.with.teacher={out}/flm-posterior"),
    "sflm": ("sflm_grammar",),
    "sflm-distilled": ("consistency_sflm_grammar", "objective.with.teacher={out}/sflm"),
    "elf": ("elf_grammar",),
}
"""Of each model its recipe, and what else is set."""
SAME = (
    "network.with.width=64",
    "network.with.heads=2",
    "train.checkpoint_every=100",
)
JUDGE = Part(use="text:ngram-judge", options={"order": 4, "unit": "tokens"})
ENTROPY = Part(use="text:ngram-entropy", options={"unit": "tokens"})
VALID = Part(use="grammar:grammar", options={"floor": 0.01})


def train(name: str, steps: int, seed: int, out: Path) -> None:
    """Train ``name`` as a user would, or go on."""
    recipe, *overrides = (word.format(out=out) for word in MODELS[name])
    runs.train(recipe, [*overrides, *SAME, f"seed={seed}"], steps, out / name)


class Cells:
    """What a cell of the table says of texts."""

    def __init__(self) -> None:
        registry, context = Registry.load(), BuildContext(length=32)
        self.data = registry.build("data", Part(use="grammar:grammar"), context)
        parts = JUDGE, ENTROPY, VALID
        self.metrics = [registry.build("metric", part, context) for part in parts]
        for metric in self.metrics:
            metric.fit(self.data)

    def of(self, texts: Sequence[str]) -> str:
        judge, entropy, valid = self.metrics
        nats = [judge.measure([text])["nll_per_token"] for text in texts]
        off = 2.0 * stdev(nats) / len(nats) ** 0.5
        share = 100.0 * valid.measure(list(texts))["valid"]
        varied = entropy.measure(list(texts))["entropy_1"]
        return f"{mean(nats):.2f} ± {off:.2f} / {varied:.2f} / {share:.0f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and texts")
    parser.add_argument("--models", default="ddlm,distilled,consistency", help="names, by commas")
    parser.add_argument("--tokens", type=int, default=409_600, help="tokens of training")
    parser.add_argument("--seed", type=int, default=0, help="of training and texts; a folder each")
    parser.add_argument("--texts", type=int, default=64, help="texts a cell")
    parser.add_argument("--evaluations", default="1,2,4,8,64", help="of the network, a text")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names, points = options.models.split(","), options.evaluations.split(",")
    print("| model |", " | ".join(points), "|", "\n" + "|---" * (len(points) + 1) + "|")
    cells = Cells()
    text = cells.of(list(islice(cells.data.texts("validation"), options.texts)))
    print(f"| held-out text | {text} |" + " |" * (len(points) - 1), flush=True)
    for name in names:
        train(name, max(1, options.tokens // TOKENS), options.seed, options.out)
        file = options.out / f"{name}.json"
        texts: dict[str, list[str]] = json.loads(file.read_text()) if file.is_file() else {}
        model = load_model(options.out / name)
        for point in points:
            if len(texts.get(point, ())) != options.texts:
                drawn = model.sample(
                    options.texts, steps=int(point), batch_size=32, seed=options.seed
                )
                assert {text.evaluations for text in drawn} == {int(point)}
                texts[point] = [text.text for text in drawn]
        file.write_text(json.dumps(texts, indent=2) + "\n", encoding="utf-8")
        row = [cells.of(texts[point]) for point in points]
        print(f"| `{name}` |", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
