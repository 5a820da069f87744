"""The model card: what the run's own files say, in the form that the hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any

from dlmkit import files
from dlmkit.errors import CheckpointError
from dlmkit.model.model import Model
from dlmkit.report import markdown
from dlmkit.training.curves import CURVES
from dlmkit.training.folder import METRICS
from dlmkit.training.metrics import read_metrics
from dlmkit.training.needs import parameter_count
from dlmkit.training.origin import environment_of, package, plugin_file, plugins_of, run_of
from dlmkit.version import __version__

CURVE_ROWS = 12
"""Validations that the card's table shows, at most: evenly spaced, the last among them."""

WEIGHTS = {"ema": "the moving average of the weights", "raw": "the last weights"}

UNLICENSED = "- No licence has been chosen for these weights yet."

Record = Mapping[str, Any]


def card(
    model: Model,
    name: str,
    licence: str | None,
    sections: Sequence[str] = (),
    limits: Sequence[str] = (),
    base: str | None = None,
) -> str:
    """The card of ``model`` as Markdown with its metadata.

    Says nothing that is not in the recipe, the run's records or the weights themselves. Without
    a ``licence`` the field is left out, and the card says so. ``sections`` and ``limits`` are what
    was measured beside. With a ``base`` the folder holds adapters of that model alone.
    """
    from huggingface_hub import ModelCard, ModelCardData  # slow to import

    data = ModelCardData(
        license=licence,
        base_model=base,
        library_name="dlmkit",
        pipeline_tag="text-generation",
        tags=["dlmkit", "diffusion", "text-diffusion"],
    )
    source, recipe = model.folder, model.recipe()
    records = _records(model)
    chapters = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name}",
        _summary(model),
        "" if base is None else _beside(model, base),
        _use(plugins_of(recipe), environment_of(source)),
        f"## Data\n\n{_data(model)}",
        f"## Training\n\n{_training(model, records)}",
        _curve([record for record in records if record["kind"] == "validation"], source),
        _metrics(records),
        *sections,
        f"## Limits\n\n{_limits(model, licence, limits)}",
        f"## Recipe\n\n```yaml\n{recipe.strip()}\n```",
    ]
    return str(ModelCard("\n\n".join(filter(None, chapters)) + "\n"))


def licensed(text: str, name: str, licence: str) -> str:
    """A card that was written before, with another title and licence."""
    from huggingface_hub import ModelCard

    made = ModelCard(text.replace(f"\n{UNLICENSED}", ""))
    made.data.__dict__["license"] = licence  # where the library keeps its fields
    made.text = re.sub(r"^# .*$", lambda _: f"# {name}", made.text, count=1, flags=re.MULTILINE)
    return str(made)


def _records(model: Model) -> list[Record]:
    """The run's records up to this checkpoint; none if it lies in no run."""
    run = run_of(model.folder)
    if run is None or not (run / METRICS).is_file():
        return []
    try:
        return [record for record in read_metrics(run / METRICS) if record["step"] <= model.step]
    except ValueError as error:
        raise CheckpointError(f"{error}: the card tells of the run's records") from error


def _summary(model: Model) -> str:
    assembly = model.assembly
    count, network = parameter_count(assembly.objective), parameter_count(assembly.network)
    words = f"{model.config.summary}\n\n" if model.config.summary else ""
    return (
        f"{words}A diffusion language model of dlmkit: {count:,} parameters, {network:,} of them "
        f"in the network (`{model.config.network.use}`), texts of up to {model.config.length} "
        f"tokens, a vocabulary of {assembly.tokenizer.vocab_size:,}. These are "
        f"{WEIGHTS[model.weights]} after step {model.step}."
    )


def _beside(model: Model, base: str) -> str:
    count = parameter_count(model.assembly.objective, trained=True)
    return (
        f"This folder holds {count:,} of them, what was trained beside `{base}`. That model's "
        "weights are read from the hub, or from a folder: `--set network.with.name=DIR`."
    )


def _use(plugins: Sequence[str], environment: Record) -> str:
    made_with = {entry["name"]: entry for entry in environment.get("plugins", ())}
    needed = [made_with[name] for name in plugins if name in made_with]
    recorded = (package(entry.get("distribution")) for entry in needed)
    packages = sorted({"dlmkit", *filter(None, recorded)})
    return _USE.format(packages=" ".join(packages), files="".join(map(_needs, needed)))


_USE = """## Use

```bash
pip install {packages}
dlmkit pull REPO FOLDER        # verifies every byte against manifest.json
dlmkit sample FOLDER -n 4
```

```python
import dlmkit
for text in dlmkit.load("FOLDER").sample(n=4):
    print(text)
```

With transformers: `import dlmkit.hf`, then `AutoModel.from_pretrained("FOLDER")`. There is no
remote code.{files}"""


def _needs(entry: Record) -> str:
    if (file := plugin_file(entry)) is None:
        return ""
    return (
        f"\n\nIt needs the plugin `{file}` (sha256 `{entry['sha256']}`), which is not in this "
        "folder: `dlmkit --plugin FILE sample FOLDER`."
    )


def _data(model: Model) -> str:
    described = environment_of(model.folder).get("data")
    options = ", ".join(f"{key}: {value}" for key, value in model.config.data.options.items())
    about = cleandoc(
        model.assembly.registry.find("data", model.config.data.use).component.config.__doc__ or ""
    )
    words = f"`{model.config.data.use}`{f' with {options}' if options else ''}. {about}\n\n"
    return f"{words}The run said: {described}." if described else words.strip()


def _training(model: Model, records: Sequence[Record]) -> str:
    train, environment = model.config.train, environment_of(model.folder)
    logged = [record for record in records if record["kind"] == "train"]
    planned = f" of {train.steps}" if model.step <= train.steps else ""  # else trained on since
    words = [
        f"{model.step}{planned} steps of {train.batch_size} rows, AdamW with a "
        f"peak learning rate of {train.learning_rate:g}, seed {model.config.seed}, dlmkit "
        f"{environment.get('dlmkit', __version__)}."
    ]
    if logged:
        last = logged[-1]
        words.append(
            f"Up to step {last['step']}: {last['tokens']:,} tokens in "
            f"{last['seconds']:.0f} seconds."
        )
    return " ".join(words)


def _curve(validations: Sequence[Record], source: Path | None) -> str:
    """The held-out loss at some of the validations, and how the gain over no context stands."""
    if source is None or not validations:
        return ""
    count = min(CURVE_ROWS, len(validations))
    last = len(validations) - 1
    chosen = [validations[round(last * i / max(1, count - 1))] for i in range(count)]
    head = ("step", "held-out loss, nats per token", "context gain")
    table = markdown(head, ((str(r["step"]), f"{r['loss']:.4f}", _gain(r)) for r in chosen), 0)
    drawn = (run_of(source) or source) / CURVES
    picture = f"\n\n![Loss and context gain]({CURVES})" if files.is_png(drawn) else ""
    return (
        "### Training curve\n\nLoss of the averaged weights on held-out text over fixed noise "
        "levels; the gain is against the best prediction without context, positive where context "
        f"is used.\n\n{table}{picture}"
    )


def _gain(record: Record) -> str:
    return f"{record['gain']:.4f}" if "gain" in record else ""


def _metrics(records: Sequence[Record]) -> str:
    measured = [record for record in records if record["kind"] == "metric"]
    if not measured:
        return ""
    rows = (
        (part, key, f"{value:.4f}")
        for part, values in measured[-1]["metrics"].items()
        for key, value in values.items()
    )
    table = markdown(("metric", "figure", "value"), rows, 2)
    return f"## Evaluation\n\nOf {measured[-1]['texts']} texts at the end of training.\n\n{table}"


def _limits(model: Model, licence: str | None, measured: Sequence[str]) -> str:
    lines = [
        f"- It writes texts of 1 to {model.config.length} tokens, in the alphabet of its "
        "tokenizer, and continues or fills in text of that kind only.",
        "- It repeats what its training text says, mistakes and prejudices included, and knows "
        "nothing else; nothing it writes has been checked for truth.",
        "- Figures hold for the sampler, grid and steps of the recipe below.",
        *measured,
    ]
    if licence is None:
        lines.append(UNLICENSED)
    return "\n".join(lines)
