"""``dlmkit export``, ``push`` and ``pull``: models as folders of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlmkit.cli.options import Trained, Weights, held_as
from dlmkit.cli.output import result, result_json, say

if TYPE_CHECKING:
    from dlmkit.hub.folder import Export

Set = Annotated[
    Weights | None,
    typer.Option(
        "--weights", help="The moving average of the weights, or the last ones.  [default: ema]"
    ),
]
Name = Annotated[str | None, typer.Option(help="The card's title.  [default: the run's folder]")]
Licence = Annotated[
    str | None,
    typer.Option("--license", metavar="ID", help="For the card: apache-2.0, cc-by-4.0, ..."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


def export(
    model: Trained,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The new folder to write.")],
    weights: Set = None,
    name: Name = None,
    licence: Licence = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What dlmkit eval --out wrote of it, for the card."),
    ] = None,
    acceptance: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What dlmkit acceptance measure --out wrote of it, for the card."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model as a folder of the Hugging Face hub.

    It holds safetensors, config.json, the tokenizer, the recipe, a model card and a manifest with
    sha256 of every file but the card. dlmkit sample, dlmkit.load and transformers' AutoModel
    (after import dlmkit.hf) read it.
    """
    _export(model, weights, name, licence, record, acceptance).write(folder)
    files = sorted(path.name for path in folder.iterdir())
    _tell({"folder": str(folder), "files": files}, f"{folder}: {', '.join(files)}", as_json)


def push(
    model: Trained,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="On the hub: user/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new one private.")] = False,
    revision: Annotated[str | None, typer.Option(help="The branch.  [default: main]")] = None,
    weights: Set = None,
    name: Name = None,
    licence: Licence = None,
    as_json: Json = False,
) -> None:
    """Export a model and send it to the Hugging Face hub, with the token of hf auth login."""
    from dlmkit.hub import transfer

    exported = _export(model, weights, name or repo.rpartition("/")[2], licence)
    url = transfer.push(exported, repo, private=private, revision=revision)
    _tell({"repo": repo, "url": url}, url, as_json)


def pull(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="On the hub: user/name.")],
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="The new folder.  [default: the name in REPO]"),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="A commit, branch or tag.  [default: main]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch a model of dlmkit from the Hugging Face hub and verify it.

    A repository with pickles or code is refused.
    """
    from dlmkit.hub import transfer

    folder = folder or Path(repo.rpartition("/")[2])
    commit = transfer.pull(repo, folder, revision)
    say(f"{repo} at {commit}: verified")
    _tell({"repo": repo, "commit": commit, "folder": str(folder)}, str(folder), as_json)


def _export(
    model: str,
    weights: Weights | None,
    name: str | None,
    licence: str | None,
    *evidence: Path | None,
) -> Export:
    from dlmkit.hub.folder import Export

    return Export.of(model, held_as(weights), name, licence, *evidence)


def _tell(values: dict[str, Any], words: str, as_json: bool) -> None:
    if as_json:
        result_json(values)
    else:
        result(words)
