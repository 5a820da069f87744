"""``dlmkit recipe``: list, show, check, compare and copy recipes. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dlmkit import documents, files
from dlmkit.cli import options
from dlmkit.cli.output import answer, columns, jsonable, result, result_json, say
from dlmkit.documents import ABSENT, differences
from dlmkit.errors import DlmkitError, RecipeError
from dlmkit.recipe.compare import line
from dlmkit.recipe.jsonschema import recipe_schema
from dlmkit.recipe.load import Resolved, load_recipe
from dlmkit.recipe.problems import InvalidRecipe, UnusableRecipe, dotted
from dlmkit.recipe.shelf import Shipped, is_path, locate, shipped
from dlmkit.recipe.yaml import read_file
from dlmkit.registry.lookup import Registry

recipe = typer.Typer(no_args_is_help=True, help="Recipes: what to train, and how.")

Reference = Annotated[str, typer.Argument(metavar="RECIPE", help="A file or a shipped name.")]
Json = Annotated[bool, options.json("One JSON document.")]


@recipe.command("ls")
def list_recipes(as_json: Json = False) -> None:
    """List the recipes that are shipped under a name."""
    recipes = [(recipe, _summary(recipe)) for recipe in shipped(Registry.load())]
    if as_json:
        result_json(
            [
                {"name": r.name, "qualified": r.qualified, "owner": r.owner, "summary": summary}
                for r, summary in recipes
            ]
        )
        return
    rows = [("NAME", "OWNER", "SUMMARY"), *((r.name, r.owner, text) for r, text in recipes)]
    result(columns(rows))


def _summary(recipe: Shipped) -> str:
    try:
        node = read_file(recipe.path, []).child("summary")
    except RecipeError as error:
        return f"(invalid: {str(error).splitlines()[0]})"
    return str(node.plain()) if node is not None else ""


def _load(reference: str, overrides: list[str] | None) -> Resolved:
    return load_recipe(reference, overrides or ())


def _plain(resolved: Resolved) -> Any:
    return resolved.config.model_dump(mode="json", by_alias=True)


@recipe.command()
def show(reference: Reference, overrides: options.Set = None, as_json: Json = False) -> None:
    """Print the fully resolved recipe.

    It has qualified names and every option, and loads again identically.
    """
    resolved = _load(reference, overrides)
    answer(as_json, jsonable(_plain(resolved)), resolved.text().rstrip("\n"))


@recipe.command()
def check(reference: Reference, overrides: options.Set = None, as_json: Json = False) -> None:
    """Check a recipe, print every problem.

    Exits 3 if the recipe is invalid, 4 if all that is wrong is a plugin that cannot be used.
    """
    try:
        _load(reference, overrides)
    except DlmkitError as error:
        if not as_json:
            raise
        result_json({"recipe": reference, "valid": False, "problems": _problems(error)})
        raise typer.Exit(error.exit_code) from error
    answer(as_json, {"recipe": reference, "valid": True, "problems": []}, f"{reference}: valid")


def _problems(error: Exception) -> list[dict[str, Any]]:
    if not isinstance(error, InvalidRecipe | UnusableRecipe):
        return [{"file": None, "line": None, "column": None, "path": "", "what": str(error)}]
    return [
        {
            "file": p.mark.origin,
            "line": p.mark.line or None,
            "column": p.mark.column or None,
            "path": dotted(p.path),
            "what": p.what,
        }
        for p in error.problems
    ]


@recipe.command()
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A file or a shipped name.")],
    after: Annotated[str, typer.Argument(metavar="B", help="A file or a shipped name.")],
    as_json: Json = False,
) -> None:
    """Print where two recipes differ.

    Compares them resolved, key path by key path. Exits 0 either way.
    """
    changes = list(differences(_plain(_load(before, None)), _plain(_load(after, None))))
    if as_json:
        sides = (
            {"path": d.key, "before": d.before, "after": d.after} for d in changes
        )  # a side without the key leaves it out
        result_json(
            [jsonable({k: v for k, v in side.items() if v is not ABSENT}) for side in sides]
        )
        return
    if not changes:
        say("no difference")
    for difference in changes:
        result(line(difference))


@recipe.command()
def cp(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped recipe.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, or a folder.")],
) -> None:
    """Copy a shipped recipe to a file, comments and all."""
    source = locate(name, Registry.load())
    target = file / source.name if file.is_dir() else file
    parent = read_file(source, []).child("extends")
    text = files.read_text(source)
    if parent is not None and is_path(str(parent.value)):
        say(f"{name} extends the file {parent.value}: writing it resolved")
        text = _load(name, None).text()
    documents.write_new(target, text)
    result(str(target))


@recipe.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    result_json(recipe_schema(Registry.load()))
