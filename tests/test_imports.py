"""Dependencies run one way, down the list of rooms; none of them knows a plugin.

Every module under dlmkit/ belongs to one room, loose ones too, and imports inside functions count
like those at the top of a file.
"""

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
GROUND = (
    "errors types rows noise plugin files folders version threads devices documents checkout shown"
)
ROOMS = [
    set(GROUND.split()),
    {"kernels"},
    {"core"},
    {"registry"},
    {"exact"},
    {"sampling"},
    {"recipe"},
    {"released"},
    {"report"},
    {"training"},
    {"model"},
    {"exits"},
    {"evaluation"},
    {"bench"},
    {"hf"},
    {"testing"},
    {"cli"},
    {"__init__", "__main__"},
]
"""From the ground up: a module imports from its own line and from those before it."""

FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
FILES = sorted((ROOT / "dlmkit").rglob("*.py"))


def imported(file: Path) -> set[str]:
    """Every module that ``file`` imports anywhere, also inside functions and for types."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the direction"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(file: Path) -> str:
    return file.relative_to(ROOT / "dlmkit").parts[0].removesuffix(".py")


def rooms(names: set[str]) -> set[str]:
    """The rooms of ``names``; what dlmkit itself offers belongs to its ``__init__``."""
    parts = [name.split(".") for name in names]
    inner = {p[1] if len(p) > 1 else "__init__" for p in parts if p[0] == "dlmkit"}
    return {name if name in FLOOR else "__init__" for name in inner}


def test_every_module_has_its_room_and_every_room_a_module():
    assert {room(file) for file in FILES} == set(FLOOR)


def test_the_map_of_contributing_lists_the_rooms_in_their_order():
    page = (ROOT / "CONTRIBUTING.md").read_text().partition("## The map\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `dlmkit/(\w+)(?:/|\.py)` \|", page, re.MULTILINE)
    assert listed == [room for rooms in ROOMS[1:-1] for room in rooms]


def test_a_module_imports_only_from_its_room_and_those_below():
    for file in FILES:
        if floor := FLOOR[room(file)]:
            above = {r for r in rooms(imported(file)) - {room(file)} if FLOOR[r] >= floor}
            assert not above, file


def test_evaluation_takes_nothing_from_the_benchmarks():
    assert "bench" not in rooms(imported(ROOT / "dlmkit/cli/eval.py"))


def test_the_ground_stands_on_nothing_but_itself():
    for file in FILES:
        if FLOOR[room(file)] == 0:
            assert rooms(imported(file)) <= ROOMS[0], file


def test_nothing_in_the_core_imports_a_plugin():
    plugins = {p.name for p in (ROOT / "plugins").iterdir()}
    for file in (ROOT / "dlmkit").rglob("*.py"):
        tops = {name.partition(".")[0] for name in imported(file)}
        assert not tops & plugins, f"{file.relative_to(ROOT)} imports {tops & plugins}"


def test_parts_import_neither_recipes_nor_the_command_line():
    """A part is handed what it needs. A plugin of commands alone composes models and has options,
    as dlmkit's own commands do."""
    of_parts = set()
    for plugin in (ROOT / "plugins").glob("*/plugin.py"):
        if hasattr(importlib.import_module(f"{plugin.parent.name}.plugin"), "register_components"):
            of_parts.add(plugin.parent.name)
            for file in plugin.parent.rglob("*.py"):
                assert not rooms(imported(file)) & {"cli", "recipe"}, file
    assert {"dlmkit_cdcd", "dlmkit_samplers"} <= of_parts


def test_commands_of_plugins_take_options_and_output_alone_from_the_command_line():
    shared = {"dlmkit.cli.options", "dlmkit.cli.output"}
    for file in (ROOT / "plugins").rglob("*.py"):
        taken = {name for name in imported(file) if name.startswith("dlmkit.cli.")}
        assert all(name.rpartition(".")[0] in shared or name in shared for name in taken), file


OPTIONS = {"configs.py", "options.py", "plugin.py"}
"""Files that hold options, which may be called what their part is: ``configs.Karras`` are those of
``grids.Karras``."""


def test_a_class_name_means_one_class():
    """And beside it, at most, options of its own plugin."""
    places: dict[str, list[tuple[str, bool]]] = {}
    for file in (*FILES, *sorted((ROOT / "plugins").rglob("*.py"))):
        root, plugin = file.relative_to(ROOT).parts[:2]
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                place = (plugin if root == "plugins" else root, file.name in OPTIONS)
                places.setdefault(node.name, []).append(place)
    for name, there in places.items():
        assert len(there) == len(set(there)), name
        assert len({package for package, _ in there}) == 1, name


PLACEHOLDERS = {"told", "found", "one", "own", "each"}
"""Words that say nothing of the thing that they would name."""


def test_a_name_says_what_the_thing_is():
    for root in ("dlmkit", "plugins", "benchmarks"):
        for file in sorted((ROOT / root).rglob("*.py")):
            nodes = list(ast.walk(ast.parse(file.read_text())))
            stored = (n for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            names = {node.id for node in stored}
            names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
            names |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
            assert not names & PLACEHOLDERS, file


RIDDLE = re.compile(
    r"\b(nats|one|two) an? (row|position|token|text|word|line|rule|value|component|part)\b"
)


def test_a_does_not_stand_for_per():
    """ "One number per row", not "one number a row", which few readers of English understand."""
    for root in ("dlmkit", "plugins", "benchmarks"):
        for file in sorted((ROOT / root).rglob("*.py")):
            assert not RIDDLE.search(file.read_text()), file


MODELS = {"cdcd", "ddlm", "plaid", "ssd", "langflow", "flow", "mdlm", "uniform", "sedd", "candi"}
MODELS |= {"hf"}
"""Plugins that are a model's parts; the others may take what a page lists."""

LENT = ROOT / "plugins" / "README.md"


def taken() -> dict[tuple[str, str], set[str]]:
    """(plugin, module of another plugin): the names that the first takes of the second."""
    found: dict[tuple[str, str], set[str]] = {}
    for file in (ROOT / "plugins").rglob("*.py"):
        own = file.relative_to(ROOT / "plugins").parts[0]
        for name in imported(file):
            module, _, taken = name.rpartition(".")
            top = module.partition(".")[0] or taken
            if top.startswith("dlmkit_") and top != own:
                found.setdefault((own.removeprefix("dlmkit_"), module), set()).add(taken)
    return found


def test_a_model_takes_nothing_from_another_plugin():
    """What two models share is in dlmkit/core, where a stranger finds it too."""
    assert [what for what in taken() if what[0] in MODELS] == []


def test_what_a_plugin_takes_from_another_is_listed():
    """By module and name, in the table under this heading, which lists nothing else."""
    heading = "## What plugins lend each other"
    page = LENT.read_text().partition(heading)[2].partition("\n## ")[0]
    rows = [line for line in page.splitlines() if line.startswith("| `dlmkit_")]
    lent = [re.findall(r"`([\w.]+)`", row) for row in rows]
    wanted: dict[str, set[str]] = {}
    for (_, module), names in taken().items():
        wanted.setdefault(module, set()).update(names)
    assert {module: set(names) for module, *names in lent} == wanted


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
    "models known --json",
    "models verify --help",
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


LOOK = f"""
import json, sys
from dlmkit.cli.app import main
found = {{}}
for command in json.load(sys.stdin):
    there = set(sys.modules)
    found[command] = main(command.split()), sorted({HEAVY} & set(sys.modules) - there)
print(json.dumps(found), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def looked() -> dict[str, list[Any]]:
    """Of each command, in a process that runs nothing else: its exit code, and what it imports."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK], input=json.dumps(LIGHT), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[Any]] = json.loads(done.stderr.splitlines()[-1])
    return found


@pytest.mark.parametrize("command", LIGHT)
def test_looking_imports_no_torch(command, looked):
    assert looked[command] == [0, []]


UNASKED = {"torch._dynamo", "torch._inductor", "sympy", "matplotlib", "transformers", "datasets"}


def test_training_imports_no_compiler_and_nothing_that_draws(tmp_path):
    """Until a recipe asks for the one, and the run has an end for the other."""
    program = (
        "import sys; from dlmkit.cli.app import main; code = main(sys.argv[1:]); "
        f"print(sorted({UNASKED} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    sizes = ["network.with.width=12", "network.with.blocks=1", "length=12", "train.batch_size=2"]
    sets = [*sizes, "train.steps=2", "train.stop_after=1", "train.validate_every=2"]
    words = ["train", "ddlm_grammar", "--out", str(tmp_path / "run")]
    arguments = [sys.executable, "-c", program, *words]
    arguments += [word for item in sets for word in ("--set", item)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
