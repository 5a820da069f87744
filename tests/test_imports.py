"""Dependencies run one way: core <- sampling <- recipe <- training <- cli; none knows a plugin.

A run starts from a recipe and saves it, so training stands above recipes, not below them.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = sorted(p.name for p in (ROOT / "dlmkit").iterdir() if (p / "__init__.py").exists())
ALLOWED = {
    "core": set(),
    "sampling": {"core"},
    "evaluation": {"core", "sampling"},
    "testing": {"core", "sampling", "evaluation", "recipe", "training"},
    "recipe": {"core", "sampling"},
    "training": {"core", "sampling", "evaluation", "recipe"},
    "bench": {"core", "sampling", "evaluation", "recipe", "training"},
    "analysis": {"core", "sampling", "evaluation", "recipe", "training"},
    "glue": {"core", "sampling", "evaluation", "recipe", "training"},
    "hub": {"core", "sampling", "evaluation", "recipe", "training"},
    "cli": set(FOLDERS),
}
"""What each folder may import, beside itself and the modules directly under dlmkit/."""


def imported(file: Path) -> set[str]:
    """Every module that ``file`` imports anywhere, also inside functions and for types."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the direction"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def folders(names: set[str]) -> set[str]:
    parts = [name.split(".") for name in names]
    return {p[1] for p in parts if p[0] == "dlmkit" and len(p) > 1 and p[1] in FOLDERS}


def test_every_folder_has_its_place():
    assert set(FOLDERS) <= set(ALLOWED)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_what_lies_below_it(folder):
    for file in (ROOT / "dlmkit" / folder).rglob("*.py"):
        strangers = folders(imported(file)) - ALLOWED[folder] - {folder}
        assert not strangers, f"{file.relative_to(ROOT)} imports {strangers}"


def test_nothing_in_the_core_imports_a_plugin():
    plugins = {p.name for p in (ROOT / "plugins").iterdir()}
    for file in (ROOT / "dlmkit").rglob("*.py"):
        tops = {name.partition(".")[0] for name in imported(file)}
        assert not tops & plugins, f"{file.relative_to(ROOT)} imports {tops & plugins}"


def test_plugins_import_neither_recipes_nor_the_command_line():
    for file in (ROOT / "plugins").rglob("*.py"):
        assert not folders(imported(file)) & {"cli", "recipe"}, file


HEAVY = {"torch", "transformers", "datasets"}
LIGHT = [
    "--help",
    "--version",
    "train --help",
    "sample --help",
    "trace --help",
    "exit calibrate --help",
    "bench sampler --help",
    "glue --help",
    "export --help",
    "push --help",
    "pull --help",
    "models list --json",
    "plugins list",
    "plugins list --json",
    "plugins check --help",
    "plugins new --help",
    "components list",
    "components show schedule",
    "components show masking/mix --json",
    "recipe ls",
    "recipe show ddlm_grammar",
    "recipe check ddlm_grammar",
    "recipe diff ddlm_grammar ddlm_grammar",
    "recipe schema",
]


@pytest.mark.parametrize("command", LIGHT)
def test_looking_imports_no_torch(command):
    program = (
        "import sys; from dlmkit.cli.app import main; code = main(sys.argv[1:]); "
        f"print(sorted({HEAVY} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    arguments = [sys.executable, "-c", program, *command.split()]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
