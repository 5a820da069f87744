"""``dlmkit glue``: fine-tune a model on a task of GLUE, against honest baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dlmkit.cli import options
from dlmkit.cli.output import answer, columns, say
from dlmkit.errors import UsageError


def glue(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK", help="cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte or wnli."
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL|RECIPE",
            help="A run's folder, a checkpoint, an exported folder or a shipped model; or a recipe "
            "whose network starts from an encoder (hf-encoder), without diffusion training.",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="DIR/TASK/{train,validation}.jsonl (mnli: validation_matched, "
            "validation_mismatched).  [default: nyu-mll/glue of the hub]",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Fine-tune this often.")] = 5,
    max_train: Annotated[
        int | None,
        typer.Option(min=1, help="Training rows, drawn anew by each seed.  [default: all]"),
    ] = None,
    way: Annotated[
        Literal["head", "infill"],
        typer.Option(help="A head on features, or labels generated as text."),
    ] = "head",
    epochs: Annotated[
        float, typer.Option(min=0.0, max=10_000.0, help="Passes over the rows.")
    ] = 3.0,
    learning_rate: Annotated[
        float, typer.Option("--lr", min=0.0, max=1e3, help="AdamW's highest, of all weights.")
    ] = 1e-3,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of a training step.")] = 32,
    noise: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Of --way head: the level, sigma / alpha, at which the text is read; 0: as it is.",
        ),
    ] = 0.0,
    steps: Annotated[
        int, typer.Option(min=1, help="Of --way infill: points of the sampling grid.")
    ] = 16,
    exit: Annotated[  # noqa: A002
        str | None,
        typer.Option(
            metavar=options.PART, help="Of --way infill: when a label halts, as in sample."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY.PATH=VALUE",
            help="A sampling key of the model, or any key of a recipe; repeatable.",
        ),
    ] = None,
    device: options.Device = "auto",
    as_json: Annotated[bool, options.json("The record on stdout.")] = False,
) -> None:
    """Fine-tune MODEL on a task of GLUE, and score it on validation rows.

    Beside it: the same architecture from fresh weights, fine-tuned alike; TF-IDF with logistic
    (stsb: ridge) regression; the most frequent label. Needs the extra: pip install 'dlmkit[glue]'.
    """
    from dlmkit import devices
    from dlmkit.recipe import short
    from dlmkit.training.memory import keep_freed
    from dlmkit_glue import data as rows_of
    from dlmkit_glue.metrics import require
    from dlmkit_glue.run import TuningSettings, check, run
    from dlmkit_glue.source import StartingModel, temporary
    from dlmkit_glue.tasks import task as named

    chosen = named(task)
    if way == "head" and exit is not None:
        raise UsageError("--exit halts labels that are generated: it goes with --way infill")
    if 0.0 in (epochs, learning_rate):
        raise UsageError("--epochs and --lr are to be above 0")
    require()
    keep_freed()
    settings = TuningSettings(
        way, seeds, max_train, epochs, batch_size, learning_rate, noise, steps
    )
    set_ = [*short.overrides(exit=exit), *(overrides or ())]
    rows = rows_of.load(chosen, data)
    place = devices.choose(device)
    with temporary() as folder:
        source = StartingModel.of(model, set_, Path(folder), place)
        check(settings, source)
        record = run(chosen, rows, source, settings, say)
    answer(as_json, record, lambda: _table(record))


def _table(record: dict[str, Any]) -> str:
    names = list(record["rows"][0]["metrics"])
    lines = [["system", *names, "seeds"]]
    for row in record["rows"]:
        cells = [_cell(row["metrics"][n], row["deviation"][n]) for n in names]
        lines.append([row["system"], *cells, str(row["seeds"])])
    return "\n".join([columns(lines), "", *_difference(record), *_notes(record)])


def _cell(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "undefined"
    return f"{mean:.4f}" + ("" if deviation is None else f" +- {deviation:.4f}")


def _difference(record: dict[str, Any]) -> list[str]:
    difference = record["difference"]
    return [
        f"{difference['of']}, {name}: {mean:+.4f}, "
        f"95 % over seeds {_ends(difference['over_seeds'][name])}, "
        f"over validation rows {_ends(difference['over_rows'][name])}"
        for name, mean in difference["mean"].items()
        if mean is not None
    ]


def _ends(interval: list[float] | None) -> str:
    return "none" if interval is None else "[{:+.4f}, {:+.4f}]".format(*interval)


def _notes(record: dict[str, Any]) -> list[str]:
    data, text, length = record["data"], record["text"], record["model"]["length"]
    used = f"all {data['train']:,}"
    if data["train_used"] < data["train"]:
        used = f"{data['train_used']:,} of {data['train']:,}, another draw for each seed"
    notes = [f"{record['task']} by {record['way']}: training rows {used}; scores on validation"]
    if text["cut"]:
        notes.append(
            f"{text['cut']:,} of {text['rows']:,} rows are longer than the model's {length} tokens "
            f"and were cut, by {text['dropped'] / text['tokens']:.1%} of all tokens"
        )
    if text["lowered"]:
        notes.append(f"{text['lowered']:,} texts were read in lower case, which fits the model")
    if text["unknown"]:
        notes.append(
            f"{text['unknown']:,} texts hold characters that the tokenizer does not know, which "
            "were left out"
        )
    for row in record["rows"]:
        if "generation" in row:
            took = row["generation"]
            notes.append(
                f"{row['system']}: {took['spelled']:.1%} of labels spelled exactly (others count "
                f"as the nearest), {took['halted']:.1%} halted early, {took['steps']:.1f} steps"
            )
    return notes
