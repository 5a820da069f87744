"""How good a model is beside exact n-gram models of its own text: one document, one judgement.

The document says by noise level how the model's cross-entropy compares with that of the exact
denoisers; how likely its free texts are at the entropy of human text, under an n-gram judge and,
where there was one, a language model; and how well it fills in. Everything has an interval by
leaving out texts, and what the intervals leave open is called undecided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import ConfigDict, Field, model_validator
from torch import Tensor

from dlmkit import documents
from dlmkit.core.metric import Metric
from dlmkit.evaluation.frontier import crossing
from dlmkit.evaluation.measure import Intervals, Number, number, without
from dlmkit.evaluation.record import Estimate
from dlmkit.exact.intervals import left_out
from dlmkit.report import COLOURS, look, plain_numbers, reach, themed
from dlmkit.report import markdown as table

ACCEPTANCE = documents.Kind(
    "dlmkit-acceptance", "dlmkit acceptance measure MODEL --out FILE", "measure again"
)
JUDGED = 0.02
"""Nats a token that the bigram denoiser must gain on the unigram for a level to be judged."""

NAMES = ("model", "context_free", "bigram", "trigram")
ENTROPIES = ("entropy_4", "entropy_1")
"""At equal values of which likelihoods are compared; the first one is judged."""

QUALITY = "nll_per_character"
"""Under the n-gram judge."""

LANGUAGE_MODEL = "language_model_"
"""What stands before the names of numbers of the language model that judges."""

BESIDE = {
    "copied": "copied",
    "distinct_4": "distinct 4-grams",
    "real_words": "real words",
    "self_bleu": "self-BLEU",
    "mauve": "MAUVE",
}
"""What else is read off at human entropy, where it was measured, and what it is called."""

PICTURES = {"light": ".png", "dark": "-dark.png"}
"""How the picture's file ends in each theme."""

Document = Mapping[str, Any]


def load(path: Path) -> dict[str, Any]:
    """The document in ``path``. Raises what :meth:`dlmkit.documents.Kind.read` raises."""
    return ACCEPTANCE.read(path, _Content)


Verdict = Literal["better", "worse", "undecided"]


class _Subject(documents.Shape):
    name: str
    sha256: str


class _Protocol(documents.Shape):
    rows: int
    texts: int
    infilled: int
    seed: int
    language_model: str | None = None


class _Level(documents.Shape):
    sigma: float
    model: float
    context_free: float
    bigram: float
    trigram: float | None
    model_minus_bigram: Estimate
    share: Estimate
    verdict: Verdict | None


class _AtHuman(documents.Shape):
    """Beside the verdicts, a number of each writer under its name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Estimate] = Field(init=False)
    model_minus: dict[str, Estimate] = Field(default_factory=dict)
    verdicts: dict[str, Verdict]


class _Frontier(documents.Shape):
    human: dict[str, Estimate]
    writers: dict[str, list[Any]]
    at_human: dict[str, _AtHuman]
    by_language_model: dict[str, _AtHuman] = Field(default_factory=dict)
    beside: dict[str, dict[str, Estimate]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole(self) -> _Frontier:
        judged = {QUALITY: self.at_human}
        if self.by_language_model:
            judged[LANGUAGE_MODEL + QUALITY] = self.by_language_model
        for quality, at in judged.items():
            missing = {quality} - self.human.keys() | set(ENTROPIES) - at.keys()
            if missing:
                raise ValueError(f"there is no {min(missing)}")
            for entropy in ENTROPIES:
                if set(self.writers) - set(at[entropy].__pydantic_extra__ or {}):
                    raise ValueError(f"some writer is missing at {entropy}")
        for name, numbers in self.beside.items():
            if set(self.writers) - numbers.keys():
                raise ValueError(f"some writer is missing at {name}")
        return self


class _Infilling(documents.Shape):
    writers: dict[str, dict[str, Estimate]]
    model_minus: dict[str, dict[str, Estimate]] = Field(default_factory=dict)


class _Content(documents.Shape):
    """What is read of a document."""

    subject: _Subject
    protocol: _Protocol
    levels: list[_Level]
    frontier: _Frontier
    infilling: _Infilling
    samples: list[str]


def verdict(lead: Mapping[str, float | None]) -> str:
    """Whether a difference, model minus other, of something better when low is surely so."""
    low, high = lead["low"], lead["high"]
    if low is None or high is None:
        return "undecided"
    return "better" if high < 0.0 else "worse" if low > 0.0 else "undecided"


def level(
    sigma: float, scores: Float[Tensor, "B 4"], tokens: Float[Tensor, "B"], intervals: Intervals
) -> dict[str, Any]:
    """One noise level, from each row's nats by :data:`NAMES` and its number of tokens.

    ``share`` is the model's gain over the context-free denoiser in that of the trigram, whose
    nats are not numbers where there is none. The verdict is None where the bigram hardly gains.
    """

    def numbers(rows: Tensor) -> Tensor:
        model, free, bigram, trigram = scores[rows].sum(dim=0) / tokens[rows].sum()
        return torch.stack([model - bigram, (free - model) / (free - trigram)])

    count = len(scores)
    left = torch.stack([numbers(rows) for rows in left_out(count, intervals.parts)])
    lead, share = (
        number(float(value), column.tolist(), count, intervals)
        for value, column in zip(numbers(torch.arange(count)), left.T, strict=True)
    )
    sums = (scores.sum(dim=0) / tokens.sum()).tolist()
    means = {n: None if math.isnan(v) else v for n, v in zip(NAMES, sums, strict=True)}
    judged = sums[NAMES.index("context_free")] - sums[NAMES.index("bigram")] > JUDGED
    entry = {"sigma": sigma, **means, "model_minus_bigram": lead, "share": share}
    return {**entry, "verdict": verdict(lead) if judged else None}


@dataclass(frozen=True)
class Point:
    """The numbers of ``count`` texts, and the same with each part of the texts left out.

    Parts are the same of any other point of as many texts, so that points pair up: with text i of
    all sets in one part, a function of several sets has its error by leaving out that part of all.
    """

    count: int
    values: Mapping[str, float]
    left: Mapping[str, Sequence[float]]
    bounds: Mapping[str, tuple[float, float]]

    @staticmethod
    def of(
        metrics: Mapping[Metric, str],
        texts: Sequence[str],
        intervals: Intervals,
        shares: Mapping[str, Tensor] | None = None,
    ) -> Point:
        """``texts`` under fitted ``metrics``, each with what stands before the names of its
        numbers, and the means of what else is known of each text: shares, float64[B] by name."""
        values: dict[str, float] = {}
        left: dict[str, Sequence[float]] = {}
        bounds: dict[str, tuple[float, float]] = {}
        for metric, before in metrics.items():
            measured = metric.alone(texts)
            values |= {before + name: value for name, value in measured.numbers.items()}
            bounds |= {before + name: metric.bounds(name) for name in measured.numbers}
            parts = without(measured, len(texts), intervals).numbers
            left |= {before + name: value for name, value in parts.items()}
        for name, known in (shares or {}).items():
            values[name], bounds[name] = float(known.mean()), (0.0, 1.0)
            left[name] = [float(known[k].mean()) for k in left_out(len(texts), intervals.parts)]
        return Point(len(texts), values, left, bounds)

    def numbers(self, intervals: Intervals) -> dict[str, Number]:
        """Every number with its interval."""
        return {
            n: number(v, self.left.get(n, ()), self.count, intervals, self.bounds[n])
            for n, v in self.values.items()
        }


@dataclass(frozen=True)
class Reading:
    """The value of a number at which a curve of points of ``count`` texts each reaches human
    entropy, and the same with each part of the texts left out, if that is known; None where the
    curve does not get there."""

    count: int
    value: float | None
    left: Sequence[float | None]
    bounds: tuple[float, float] = (-math.inf, math.inf)

    def number(self, intervals: Intervals) -> Number:
        """With its interval; null where the curve does not get there."""
        return _read(self.value, self.left, self.count, intervals, self.bounds)

    def minus(self, other: Reading, intervals: Intervals) -> Number:
        """The difference."""
        left = [_less(a, b) for a, b in zip(self.left, other.left, strict=True)]
        return _read(_less(self.value, other.value), left, self.count, intervals)


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _read(
    value: float | None,
    left: Sequence[float | None],
    count: int,
    intervals: Intervals,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Number:
    known = [math.nan if given is None else given for given in left]
    return number(math.nan if value is None else value, known, count, intervals, bounds)


def reading(points: Sequence[Point], human: Point, entropy: str, wanted: str = QUALITY) -> Reading:
    """The number ``wanted`` where the line through ``points``, in their order, reaches the
    entropy of ``human``."""
    curve = [(point.values[entropy], point.values[wanted]) for point in points]
    left: list[float | None] = []
    if all(wanted in point.left for point in points):
        left = [
            crossing([(point.left[entropy][k], point.left[wanted][k]) for point in points], at)
            for k, at in enumerate(human.left[entropy])
        ]
    value = crossing(curve, human.values[entropy])
    return Reading(human.count, value, left, points[0].bounds[wanted])


def frontier(
    writers: Mapping[str, Mapping[float, Point]], human: Point, intervals: Intervals
) -> dict[str, Any]:
    """The curve of every writer over its temperatures, and where they stand at human entropy.

    ``writers`` holds ``model`` and whom it is compared with.
    """
    curves = {name: [*curve.values()] for name, curve in writers.items()}

    def judged(quality: str) -> dict[str, Any]:
        by_entropy: dict[str, Any] = {}
        for entropy in ENTROPIES:
            at = {name: reading(c, human, entropy, quality) for name, c in curves.items()}
            leads = {n: at["model"].minus(at[n], intervals) for n in writers if n != "model"}
            by_entropy[entropy] = {
                **{name: reached.number(intervals) for name, reached in at.items()},
                "model_minus": leads,
                "verdicts": {name: verdict(lead) for name, lead in leads.items()},
            }
        return by_entropy

    language_model = LANGUAGE_MODEL + QUALITY
    return {
        "human": human.numbers(intervals),
        "writers": {
            name: [{"temperature": t, **point.numbers(intervals)} for t, point in curve.items()]
            for name, curve in writers.items()
        },
        "at_human": judged(QUALITY),
        "by_language_model": judged(language_model) if language_model in human.values else {},
        "beside": {
            known: {
                name: reading(curve, human, ENTROPIES[0], known).number(intervals)
                for name, curve in curves.items()
            }
            for known in BESIDE
            if known in human.values and all(known in p.values for c in curves.values() for p in c)
        },
    }


def infilled(points: Mapping[str, Point], human: Point, intervals: Intervals) -> dict[str, Any]:
    """Each writer's numbers, and the model's minus those of the others on the same rows."""
    model = points["model"]
    leads = {
        name: {
            key: number(
                model.values[key] - value,
                [a - b for a, b in zip(model.left[key], point.left[key], strict=True)],
                model.count,
                intervals,
            )
            for key, value in point.values.items()
        }
        for name, point in points.items()
        if name != "model"
    }
    writers = {name: point.numbers(intervals) for name, point in points.items()}
    return {"writers": {**writers, "human": human.numbers(intervals)}, "model_minus": leads}


def _verdicts(document: Document) -> Mapping[str, str]:
    """How the model's texts are beside every other writer's at human entropy: by the language
    model if there was one, since an n-gram judge cannot compare vocabularies."""
    frontier = document["frontier"]
    judged = frontier.get("by_language_model") or frontier["at_human"]
    verdicts: Mapping[str, str] = judged[ENTROPIES[0]]["verdicts"]
    return verdicts


def _fills_in(document: Document) -> str:
    """How the model's likeliest tokens are beside the bigram posterior's."""
    lead = document["infilling"].get("model_minus", {}).get("bigram", {}).get("likeliest")
    if lead is None:
        return "undecided"
    opposite = {"better": "worse", "worse": "better"}  # here more is better
    word = verdict(lead)
    return opposite.get(word, word)


def bar(document: Document) -> str:
    """What :func:`passed` asks for, in words."""
    judge = document["protocol"].get("language_model")
    return (
        "surely below the bigram denoiser at every judged level; free texts surely likelier than "
        f"all other writers' at equal 4-gram entropy, under {judge or 'the n-gram judge'}; half "
        "given, surely more tokens filled in rightly than by the bigram posterior"
    )


def passed(document: Document) -> bool:
    """Whether the model clears the :func:`bar`."""
    levels = [level["verdict"] for level in document["levels"] if level["verdict"] is not None]
    words = (*levels, *_verdicts(document).values(), _fills_in(document))
    return all(word == "better" for word in words)


def shortfalls(document: Document) -> list[str]:
    """What keeps the model from passing, and where it is not surely the better one: Markdown
    lines of a list."""
    lines = []
    for word, what in (("worse", "is above"), ("undecided", "is not surely below")):
        at = [f"{level['sigma']:.2f}" for level in document["levels"] if level["verdict"] == word]
        if at:
            lines.append(
                f"- Its cross-entropy {what} the exact bigram denoiser's at noise-to-signal ratio "
                f"{', '.join(at)}."
            )
    texts = _verdicts(document)
    for word, what in (("worse", "less likely"), ("undecided", "not surely likelier")):
        names = [f"a {name} sampler's" for name, said in texts.items() if said == word]
        if names:
            lines.append(f"- At human entropy its texts are {what} than {_listed(names)}.")
    if _fills_in(document) != "better":
        lines.append(
            "- Half of a text given, it does not surely fill in more than the bigram posterior."
        )
    return lines


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def markdown(document: Document) -> str:
    """The document as tables."""
    parts = [_levels(document), _texts(document), _beside(document), _infilling(document)]
    return "\n\n".join(filter(None, parts))


def _levels(document: Document) -> str:
    exact = ["context_free", "bigram", "trigram"]
    if any(level["trigram"] is None for level in document["levels"]):
        exact.remove("trigram")
    rows = [
        (
            f"{level['sigma']:.2f}",
            *(f"{level[name]:.4f}" for name in (*exact, "model")),
            between(level["model_minus_bigram"], 4),
            *([between(level["share"], 2) if level["verdict"] else ""] if len(exact) > 2 else []),
            level["verdict"] or "not judged",
        )
        for level in document["levels"]
    ]
    head = ["sigma", *exact, "model", "model - bigram", "verdict"]
    head[1] = "context-free"
    words = "how often they follow one other (bigram)"
    if len(exact) > 2:
        head.insert(-1, "share of the trigram's gain")
        words = "how often they follow one (bigram) or two others (trigram)"
    return (
        f"Cross-entropy, nats per token, on {document['protocol']['rows']} held-out rows, beside "
        f"the exact Bayes denoisers that know how frequent tokens are (context-free), and {words}. "
        f"A level is judged where the bigram gains more than {JUDGED:g} on the context-free.\n\n"
        + table(head, rows)
    )


def _texts(document: Document) -> str:
    curves = document["frontier"]
    judges = [("", QUALITY, curves["at_human"])]
    if curves.get("by_language_model"):
        name = document["protocol"].get("language_model") or "the language model"
        judges[0] = ("6-gram judge", QUALITY, curves["at_human"])
        judges.insert(0, (name, LANGUAGE_MODEL + QUALITY, curves["by_language_model"]))
    columns = [(name, quality, at[e], e) for name, quality, at in judges for e in ENTROPIES]
    rows = []
    for name in curves["writers"]:
        cells = []
        for _, _, at, _ in columns:
            lead = f" ({at['verdicts'][name]})" if name in at["verdicts"] else ""
            cells.append(between(at[name], 2) + lead)
        rows.append((name, *cells))
    rows.append(("human", *(between(curves["human"][quality], 2) for _, quality, _, _ in columns)))
    head = [
        f"{judge + ', ' if judge else ''}at equal {entropy[-1]}-gram entropy"
        for judge, _, _, entropy in columns
    ]
    return (
        f"Free texts, {document['protocol']['texts']} of each writer, their temperatures moved: "
        f"nats per character under {'each' if len(judges) > 1 else 'the'} judge where a writer's "
        "texts have the entropy of human text; in brackets what the model is beside it.\n\n"
        + table(("writer", *head), rows)
    )


def _beside(document: Document) -> str:
    """What else is known of the texts; nothing in a document that has none of it."""
    curves = document["frontier"]
    numbers = curves.get("beside") or {}
    if not numbers:
        return ""
    rows = [
        (name, *(between(numbers[key][name], 3) for key in numbers)) for name in curves["writers"]
    ]
    rows.append(("human", *(between(curves["human"][key], 3) for key in numbers)))
    return (
        "The same texts at equal 4-gram entropy. Copied: share of their windows of 30 characters "
        "that stand in the training text.\n\n"
        + table(("writer", *(BESIDE.get(key, key) for key in numbers)), rows)
    )


def _infilling(document: Document) -> str:
    rows = [
        (
            name,
            *(between(numbers[key], 3) if key in numbers else "" for key in ("likeliest", "drawn")),
            between(numbers[QUALITY], 3) if QUALITY in numbers else "",
        )
        for name, numbers in document["infilling"]["writers"].items()
    ]
    return (
        f"Half of the tokens of {document['protocol']['infilled']} held-out rows given, at random "
        "places: share of the others that is the text's own, by the likeliest token of each place "
        "and by a completion drawn; nats per character of the completed texts under the n-gram "
        "judge.\n\n"
        + table(("writer", "accuracy, likeliest", "accuracy, drawn", "nats per character"), rows)
    )


def between(number: Mapping[str, float | None], digits: int) -> str:
    """A number with its interval, as words."""
    value, low, high = (number[key] for key in ("value", "low", "high"))
    if value is None:
        return "not reached"
    ends = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{value:.{digits}f}{ends}"


def draw(document: Document, theme: str) -> Figure:
    """Left, the gain on the context-free denoiser by noise level; right, the frontiers."""
    with themed(theme):
        figure = Figure(figsize=(11.5, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_levels(left, document["levels"])
        _draw_frontier(right, document)
        for axes in (left, right):
            axes.grid(alpha=0.25)
            axes.legend(frameon=False)
    return figure


def _draw_levels(axes: Axes, levels: Sequence[Mapping[str, Any]]) -> None:
    sigma = [level["sigma"] for level in levels]
    for place, name in enumerate(("model", "bigram", "trigram")):
        if any(level[name] is None for level in levels):
            continue
        gain = [level["context_free"] - level[name] for level in levels]
        label = name if name == "model" else f"exact {name}"
        axes.plot(sigma, gain, label=label, **_look(place))
    axes.set(
        xlabel=r"noise-to-signal ratio $\sigma$",
        ylabel="gain on the context-free denoiser, nats per token",
        title="Denoising held-out text",
        xscale="log",
    )
    plain_numbers(axes.xaxis)


def _draw_frontier(axes: Axes, document: Document) -> None:
    """Every writer's line over its temperatures, and human text as a cross on a dotted line."""
    frontier, entropy, quality, judge = document["frontier"], ENTROPIES[0], QUALITY, "the judge"
    if frontier.get("by_language_model"):
        quality, judge = LANGUAGE_MODEL + QUALITY, document["protocol"]["language_model"]
    human = frontier["human"]
    for rank, (name, points) in enumerate(frontier["writers"].items()):
        x, y = ([point[key]["value"] for point in points] for key in (entropy, quality))
        bars = [reach([point[key] for point in points]) for key in (entropy, quality)]
        label = name if name == "model" else f"{name} sampler"
        axes.errorbar(x, y, xerr=bars[0], yerr=bars[1], capsize=2, label=label, **_look(rank))
        for place in (0, -1):
            words = f"{points[place]['temperature']:g}"
            axes.annotate(
                words, (x[place], y[place]), (5, -11), textcoords="offset points", fontsize=8
            )
    at = human[entropy]["value"], human[quality]["value"]
    axes.axvline(at[0], ls=":", lw=1.2, color=COLOURS[6])
    axes.plot(*at, ls="none", marker="X", ms=10, color=COLOURS[7], label="held-out text")
    axes.set(
        xlabel="entropy of pooled character 4-grams, nats",
        ylabel=f"nats per character under {judge}",
        title="Free texts; the numbers are temperatures",
    )


def _look(rank: int) -> dict[str, Any]:
    """Of the line number ``rank``, the model's being the first."""
    style = ("-", "--", "-.", ":")[rank % 4]
    return {**look(rank), "ls": style}
