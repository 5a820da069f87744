"""``dlmkit push`` and ``pull``: models to the Hugging Face hub, and from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlmkit.cli import options
from dlmkit.cli.output import answer, say


def push(
    model: options.Trained,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="On the hub: user/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new one private.")] = False,
    revision: Annotated[str | None, typer.Option(help="The branch.  [default: main]")] = None,
    weights: options.Held = None,
    name: options.Name = None,
    licence: options.Licence = None,
    as_json: Annotated[bool, options.json("One JSON object.")] = False,
) -> None:
    """Export a model and send it to the Hugging Face hub, with the token of hf auth login."""
    from dlmkit.model.folder import Export
    from dlmkit_hub import transfer

    title = name or repo.rpartition("/")[2]
    exported = Export.of(model, weights, title, licence)
    url = transfer.push(exported, repo, private=private, revision=revision)
    answer(as_json, {"repo": repo, "url": url}, url)


def pull(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="On the hub: user/name.")],
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="The new folder.  [default: the name in REPO]"),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="A commit, branch or tag.  [default: main]")
    ] = None,
    as_json: Annotated[bool, options.json("One JSON object.")] = False,
) -> None:
    """Fetch a model of dlmkit from the Hugging Face hub and verify it.

    A repository with pickles or code is refused.
    """
    from dlmkit_hub import transfer

    folder = folder or Path(repo.rpartition("/")[2])
    commit = transfer.pull(repo, folder, revision)
    say(f"{repo} at {commit}: verified")
    answer(as_json, {"repo": repo, "commit": commit, "folder": str(folder)}, str(folder))
