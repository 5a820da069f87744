"""Published models on the King James Bible at equal parameters and FLOPs: quality by evaluations.

    python benchmarks/models.py --out runs/models --judge FOLDER    # the table and the picture
    python benchmarks/models.py --out runs/models --models mdlm,ar --seeds 0 --tokens 50000
    python benchmarks/models.py --out runs/models --table           # of what is there already

The models are all recipes `*_words`, CDCD and DDLM, and an autoregressive transformer of the same
blocks (`benchmarks/causal.py`). Each is trained by `dlmkit train`: its blocks made as wide as
brings it to the parameters of `ddlm_small`, for as many steps as take the FLOPs that `ddlm_small`
needs for ``--tokens``; all see the same maskings. With the first seed every rate is tried, and the
one kept that best fills in held-out rows of which half is given: nats of the rest at the highest
noise, in one evaluation (of the autoregressive model, its likelihood). Then, of every seed:

- nats per character of its texts under the judge (``--judge``: a causal model of transformers; else
  a 6-gram model of the training text) and entropy of their pooled words, by evaluations;
- the same over temperatures at one number of evaluations: of the score where embeddings are in
  Gaussian noise, else of the predicted distribution;
- the share of open tokens that it fills in as the text has them; its bound, if it has one, on
  unconditional held-out rows; seconds per text.

One thread. A file in ``--out`` keeps each result; what is there is not done again, and training
goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
import runs
import torch
from torch.utils.flop_counter import FlopCounterMode

import dlmkit
from dlmkit import report
from dlmkit.bench.flops import plain_attention
from dlmkit.core.denoise import Denoise
from dlmkit.core.embedding import GaussianCorruption
from dlmkit.core.metric import Metric
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch, Draws
from dlmkit.core.options import Nothing
from dlmkit.model import Model, Run, compose, load_model
from dlmkit.noise import Noise
from dlmkit.plugin import Part
from dlmkit.recipe.load import load_recipe
from dlmkit.recipe.shelf import shipped
from dlmkit.registry.lookup import Registry
from dlmkit.sampling.requests import Request
from dlmkit.training.draws import stratified
from dlmkit_acceptance.infilling import half_given
from dlmkit_cdcd.masking import NoMasking

CAUSAL = Path(__file__).with_name("causal.py")
REFERENCE = "ddlm"
MASKING = (
    "masking={use: cdcd:mix, with: {parts: [{use: cdcd:none}, {use: cdcd:prefix}, "
    "{use: cdcd:random}], weights: [2, 1, 1]}}"
)
PIECES = "data.with.tokenizer.size=2048"
OTHERS: Mapping[str, tuple[str, ...]] = {
    "cdcd": (
        "ddlm_small",
        PIECES,
        MASKING,
        "schedule={use: cdcd:time-warp, with: {t_min: 0.5, t_max: 30.0}}",
        "sampler.use=samplers:euler",
    ),
    REFERENCE: ("ddlm_small", PIECES, MASKING),
    "flm-posterior": ("flm_words", MASKING, "space.with.reads=posterior"),
    "ar": (
        "mdlm_words",
        "masking={use: cdcd:none}",
        "network={use: causal:transformer, with: {width: 128, blocks: 5, heads: 4, "
        "query_bias: true, rotary_base: 100.0}}",
        "objective={use: causal:next-token}",
        "sampler={use: mdlm:unmasking, with: {window: 1}}",
        "grid={use: samplers:linear}",
    ),
}
"""Of each model that is not a recipe's alone: its recipe, and what else is set."""
NEAR = 0.05
"""How far parameters may be from the reference's."""


def models(registry: Registry) -> dict[str, tuple[str, ...]]:
    """Every model by name."""
    words = [recipe.name for recipe in shipped(registry) if recipe.name.endswith("_words")]
    return {**{name.removesuffix("_words"): (name, MASKING) for name in words}, **OTHERS}


class Kept:
    """Results by name, a file each in ``folder``; what is there is not computed again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, name: str) -> Any:
        file = self.folder / f"{name}.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        known = self.find(name)
        if known is None:
            known = make()
            new = self.folder / f"{name}.json.new"
            new.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
            new.replace(self.folder / f"{name}.json")
        return known


def composed(words: Sequence[str]) -> Model:
    """The untrained model of a recipe and what is set."""
    recipe = load_recipe(words[0], list(words[1:])).config
    return compose(**recipe.model_dump(mode="json", by_alias=True))


def parameters(model: Model) -> int:
    return sum(p.numel() for p in model.assembly.objective.parameters())


def step_flops(model: Model) -> int:
    """FLOPs of a training step behind any curriculum, by the shapes of its matrix products."""
    size, objective = model.config.train.batch_size, model.assembly.objective.train()
    slots = torch.arange(size)
    batch = model.data.stream(0, size).read(0, slots)
    u = stratified(0, 0, size, torch.device("cpu"))
    draws = Draws(u, Noise.keyed(0, slots, 0))
    counter = FlopCounterMode(display=False)
    with plain_attention(objective.network), counter:
        objective(batch, draws).loss_sum.backward()
    return int(counter.get_total_flops())


def sized(words: Sequence[str], wanted: int | None) -> dict[str, Any]:
    """The width of the blocks that comes nearest to ``wanted`` parameters, and what follows."""
    config = load_recipe(words[0], list(words[1:])).config
    width, heads = (int(config.network.options[key]) for key in ("width", "heads"))
    tried: dict[int, Model] = {}

    def at(size: int) -> Model:
        if size not in tried:
            tried[size] = composed([*words, f"network.with.width={size}"])
        return tried[size]

    while wanted is not None:
        here = abs(parameters(at(width)) - wanted)
        step = 2 * heads if parameters(at(width)) < wanted else -2 * heads
        if abs(parameters(at(width + step)) - wanted) >= here:
            break
        width += step
    model = at(width)
    return {"width": width, "parameters": parameters(model), "flops": step_flops(model)}


def train(words: Sequence[str], steps: int, rate: float, seed: int, folder: Path) -> Model:
    """The model trained in ``folder`` as a user would, or as far as it is still to go."""
    sets = [
        *words[1:],
        f"train.warmup_steps={min(200, steps // 10)}",
        f"train.learning_rate={rate}",
        f"seed={seed}",
        "train.checkpoint_every=250",
        "sample.steps=48",  # as many as a row has tokens
    ]
    runs.train(words[0], sets, steps, folder, "--plugin", str(CAUSAL))
    return load_model(folder)


@torch.no_grad()
def loss(model: Model, batch: Batch, repeats: int = 4) -> float:
    """Nats a token of unconditional rows, by the model's own objective."""
    objective, rows = model.assembly.objective.eval(), len(batch.ids)
    masking = getattr(objective, "masking", None)
    objective.masking = NoMasking(Nothing(), model.assembly.context)  # type: ignore[assignment]
    u = stratified(0, 0, rows * repeats, torch.device("cpu")).view(repeats, rows)
    noise = (Noise.keyed(1, torch.arange(rows), turn) for turn in range(repeats))
    parts = [objective(batch, Draws(draw, keys)) for draw, keys in zip(u, noise, strict=True)]
    objective.masking = masking  # type: ignore[assignment]
    return float(sum(p.loss_sum for p in parts) / sum(p.count for p in parts))


@torch.no_grad()
def filling(model: Model, batch: Batch) -> float:
    """Nats of the open half of the tokens, the others given, in one evaluation of pure noise."""
    assembly, rows = model.assembly, len(batch.ids)
    space, schedule = assembly.objective.space, assembly.objective.schedule
    given, x0 = half_given(batch, 0), space.embed(batch.ids)
    level = schedule.level(schedule.quantile(torch.ones(rows)))
    x = space.corruption.prior(x0, level, Noise.keyed(2, torch.arange(rows), 0))
    known = Conditioning.of(space.corruption.clean(x0), given, batch.attend)
    denoise: Denoise = assembly.objective.eval().denoise()
    said = denoise(x, level, denoise.start(x), known).query
    nats = -space.logits(said).log_softmax(dim=-1).gather(-1, batch.ids[..., None])[..., 0]
    return float(nats[batch.attend & ~given].mean())


def infilled(model: Model, batch: Batch, steps: int, size: int) -> float:
    """The share of the open tokens that are filled in as the text has them."""
    given = half_given(batch, 0)
    asked = [
        Request(row, tuple(i if known else None for i, known in zip(ids, there, strict=True)))
        for row, (ids, there) in enumerate(zip(batch.ids.tolist(), given.tolist(), strict=True))
    ]
    filled = torch.tensor([s.ids for s in model.run(asked, Run(0, steps, size))])
    return float((filled == batch.ids)[~given].double().mean())


def softened(model: Model, temperature: float) -> Model:
    """``model`` at a temperature."""
    space = model.assembly.objective.space
    scored = space.tied and isinstance(space.corruption, GaussianCorruption)
    name = "score-temperature" if scored else "softmax-temperature"
    return model.with_(f"guidance=[{{use: samplers:{name}, with: {{temperature: {temperature}}}}}]")


class Judges:
    """What texts are scored by, fitted once."""

    def __init__(self, data: Any, context: Any, registry: Registry, folder: Path | None) -> None:
        judge = (
            Part(use="text:ngram-judge")
            if folder is None
            else Part(use="metrics:ar-nll", options={"judge": str(folder)})
        )
        self.metrics: list[Metric] = [
            registry.build("metric", part, context)
            for part in (judge, Part(use="text:ngram-entropy", options={"unit": "words"}))
        ]
        for metric in self.metrics:
            metric.fit(data)

    def score(self, texts: Sequence[str]) -> dict[str, float]:
        judge, entropies = self.metrics
        alone = getattr(judge, "alone", None)  # without human text beside it every time
        nats = (alone(texts).numbers if alone else judge.measure(texts))["nll_per_character"]
        return {"nats": nats, "entropy": entropies.measure(texts)["entropy_1"]}


def measured(model: Model, judges: Judges, asked: argparse.Namespace, name: str) -> dict[str, Any]:
    """Everything that the table and the picture show of one trained model."""
    batch = model.data.validation(asked.rows)
    objective = model.assembly.registry.find("objective", model.config.objective.use)
    content: dict[str, Any] = {"sampler": model.config.sampler.use, "points": {}, "frontier": {}}
    if "likelihood-bound" in objective.component.provides:
        content["bound"] = loss(model, batch)
    causal = name == "ar"
    if not causal:
        content["infilled"] = infilled(model, batch, asked.steps, asked.batch)
    for steps in [model.config.length] if causal else asked.evaluations:
        start = time.perf_counter()
        drawn = model.sample(asked.texts, steps=steps, batch_size=asked.batch)
        spent = (time.perf_counter() - start) / asked.texts
        texts = [text.text for text in drawn]
        count = mean(text.evaluations for text in drawn)
        content["points"][str(steps)] = {
            "evaluations": count,
            "seconds": spent,
            **judges.score(texts),
        }
        content["texts"] = texts[:3]
    for temperature in asked.temperatures:
        steps = model.config.length if causal else asked.steps
        drawn = softened(model, temperature).sample(
            asked.texts, steps=steps, batch_size=asked.batch
        )
        content["frontier"][str(temperature)] = judges.score([text.text for text in drawn])
    return content


def trained(name: str, words: tuple[str, ...], asked: argparse.Namespace, judges: Judges) -> None:
    """Train and measure one model, as far as it is not done."""
    kept = Kept(asked.results)
    reference = kept.get(f"size-{REFERENCE}", lambda: sized(OTHERS[REFERENCE], None))
    size = kept.get(f"size-{name}", lambda: sized(words, reference["parameters"]))
    off = size["parameters"] / reference["parameters"] - 1.0
    print(
        f"{name}: width {size['width']}, {size['parameters']:,} parameters ({off:+.1%})", flush=True
    )
    if abs(off) > NEAR:
        raise SystemExit(
            f"{name}: no width brings it within {NEAR:.0%} of {REFERENCE}'s parameters"
        )
    config = load_recipe(words[0], list(words[1:])).config
    tokens = config.train.batch_size * config.length
    steps = max(1, round(asked.tokens / tokens * reference["flops"] / size["flops"]))
    words = (*words, f"network.with.width={size['width']}")

    def run(rate: float, seed: int) -> Model:
        folder = asked.out / "runs" / f"{name}-{asked.tokens}-{rate:g}-{seed}"
        return train(words, steps, rate, seed, folder)

    def tried(rate: float) -> dict[str, float]:
        model = run(rate, asked.seeds[0])
        batch = model.data.validation(asked.rows)
        return {"rate": rate, "nats": (loss if name == "ar" else filling)(model, batch)}

    rates = [
        kept.get(f"rate-{name}-{asked.tokens}-{rate:g}", partial(tried, rate))
        for rate in asked.rates
    ]
    best = min(rates, key=lambda result: result["nats"])["rate"]
    for seed in asked.seeds:
        about = {"steps": steps, "rate": best, "rates": rates, **size}
        point = f"{name}-{asked.tokens}-{seed}"
        kept.get(point, lambda: {**about, **measured(run(best, seed), judges, asked, name)})  # noqa: B023
        print(f"{point}: {kept.find(point)['texts'][0]!r}", flush=True)


Found = Mapping[str, Sequence[Mapping[str, Any]]]


def results(names: Sequence[str], asked: argparse.Namespace) -> Found:
    """By model, what is known of every seed."""
    kept = Kept(asked.results)
    by_model = {n: [kept.find(f"{n}-{asked.tokens}-{seed}") for seed in asked.seeds] for n in names}
    return {
        name: [result for result in seeds if result]
        for name, seeds in by_model.items()
        if any(seeds)
    }


def over(seeds: Sequence[Mapping[str, Any]], *path: str, form: str = ".3f") -> str:
    """The mean of one number over seeds, and how far the seeds lie from it."""
    values = []
    for value in seeds:
        for key in path:
            value = value.get(key) if value else None  # type: ignore[assignment]
        if value is not None:
            values.append(float(value))  # type: ignore[arg-type]
    if not values:
        return ""
    reach = (max(values) - min(values)) / 2.0
    return f"{mean(values):{form}}" + (f" ± {reach:{form}}" if len(values) > 1 else "")


def table(by_model: Found, human: Mapping[str, float], evaluations: Sequence[int], at: int) -> str:
    """Rows of models, columns of evaluations."""
    cells = [str(n) for n in evaluations]
    head = ["model", "parameters", "steps", "rate", *cells, f"entropy at {at}", "bound", "infilled"]
    rows = [[*head, f"seconds per text at {at}"], ["---"] * (len(head) + 1)]
    for name, seeds in by_model.items():
        first, last = (
            seeds[0],
            str(at) if str(at) in seeds[0]["points"] else max(seeds[0]["points"]),
        )
        nats = [over(seeds, "points", n, "nats") for n in cells]
        if last not in cells:
            nats[-1] = f"{over(seeds, 'points', last, 'nats')} (at {last})"
        rows.append(
            [
                f"`{name}`",
                f"{first['parameters']:,}",
                f"{first['steps']:,}",
                f"{first['rate']:g}",
                *nats,
                over(seeds, "points", last, "entropy", form=".2f"),
                over(seeds, "bound", form=".2f"),
                over(seeds, "infilled"),
                over(seeds, "points", last, "seconds"),
            ]
        )
    lines = [f"| {' | '.join(row)} |" for row in rows]
    text = f"held-out text: {human['nats']:.3f} nats per character, entropy {human['entropy']:.2f}"
    return "\n".join([*lines, "", text])


def picture(by_model: Found, human: Mapping[str, float], at: int, file: Path) -> None:
    """Quality against evaluations, and against entropy over temperatures; for any background."""
    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings: Any = {**dict.fromkeys(ink, report.GREY), "svg.hashsalt": "dlmkit"}
    with matplotlib.rc_context(settings):
        figure, (left, right) = report.panels(2, (10.5, 4.8))
        for place, (name, seeds) in enumerate(by_model.items()):
            look = report.look(place)
            steps = sorted(seeds[0]["points"], key=int)
            nats = [mean(s["points"][n]["nats"] for s in seeds) for n in steps]
            left.plot(
                [seeds[0]["points"][n]["evaluations"] for n in steps], nats, label=name, **look
            )
            heats = sorted(seeds[0]["frontier"], key=float)
            here = str(at) if str(at) in steps else steps[-1]
            both = [*(("frontier", t) for t in heats), ("points", here)]
            line = [
                tuple(mean(s[k][n][w] for s in seeds) for w in ("entropy", "nats")) for k, n in both
            ]
            right.plot(*zip(*line, strict=True), label=name, **look)
        report.reference(left, human["nats"], "held-out text")
        report.real(right, human["entropy"], human["nats"], "held-out text")
        left.set_xscale("log", base=2)
        left.xaxis.set_major_formatter("{x:g}")
        left.set(xlabel="evaluations of the network", ylabel="nats per character under the judge")
        right.set(xlabel=f"entropy of pooled words, nats ({at} evaluations)")
        report.legend(figure, [left, right])
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})


def listed(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [kind(part) for part in text.split(",") if part]


def main() -> None:
    dlmkit.load_plugin(CAUSAL)
    registry = Registry.load()
    every = models(registry)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--models", type=listed(str), default=list(every), help="some of all")
    parser.add_argument("--seeds", type=listed(int), default=[0, 1])
    parser.add_argument("--rates", type=listed(float), default=[1e-3, 3e-3])
    parser.add_argument("--tokens", type=int, default=7_000_000, help="of ddlm_small's training")
    parser.add_argument("--texts", type=int, default=256, help="texts per point")
    parser.add_argument("--rows", type=int, default=256, help="held-out rows of the other numbers")
    parser.add_argument("--batch", type=int, default=64, help="texts side by side")
    parser.add_argument("--evaluations", type=listed(int), default=[8, 16, 32, 64, 128])
    parser.add_argument("--temperatures", type=listed(float), default=[0.7, 0.8, 0.9])
    parser.add_argument("--steps", type=int, default=64, help="evaluations of the frontier")
    parser.add_argument("--judge", type=Path, help="from_pretrained folder of a causal model")
    parser.add_argument("--table", action="store_true", help="only show what is known")
    asked = parser.parse_args()
    judge = "6-gram" if asked.judge is None else asked.judge.name
    asked.results = asked.out / f"results-{judge}"
    torch.set_num_threads(1)
    unknown = sorted(set(asked.models) - set(every))
    if unknown:
        parser.error(f"unknown models {unknown}; there are {', '.join(every)}")
    example = composed(every[REFERENCE])
    kept = Kept(asked.results)
    judges = Judges(example.data, example.assembly.context, registry, asked.judge)
    batch = example.data.validation(asked.texts)
    spoken = example.assembly.tokenizer.decode
    human = kept.get("human", lambda: judges.score([spoken(i) for i in batch.ids.tolist()]))
    for name in asked.models:
        if not asked.table:
            trained(name, every[name], asked, judges)
    by_model = results(asked.models, asked)
    if not by_model:
        parser.error(f"{asked.out} holds no result of these models, seeds and tokens")
    print(table(by_model, human, asked.evaluations, asked.steps))
    picture(by_model, human, asked.steps, asked.out / "models.svg")
    whole = {"human": human, "models": by_model}
    (asked.out / "models.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
