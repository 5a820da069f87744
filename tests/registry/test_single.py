"""A plugin in one file: found only where it is named, and checked and isolated like any other."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dlmkit
from dlmkit.cli.app import main
from dlmkit.core.context import BuildContext
from dlmkit.errors import DlmkitError, PluginError, RecipeError, UsageError
from dlmkit.plugin import API, Part
from dlmkit.recipe.load import resolve_text
from dlmkit.registry import listing, single
from dlmkit.registry.lookup import Registry
from dlmkit.training import origin
from dlmkit.training.folder import read_environment

CHAPTER = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
CHAPTER = CHAPTER[CHAPTER.index("### One file") : CHAPTER.index("### A package")]
(MINE,) = re.findall(r"^`mine.py`:\n\n```python\n(.*?)```$", CHAPTER, re.DOTALL | re.MULTILINE)
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", CHAPTER, re.DOTALL)
    for line in block.splitlines()
]
HEAD = f"api = {API}\nfrom dlmkit import Component, Config, hookimpl\n"
MASKING = f"""{HEAD}
class Mine(Config):
    "No options."

@hookimpl
def register_components():
    return [Component("masking", "mine", "a masking", Mine, "mine:build")]
"""
NOTHING = f"{HEAD}@hookimpl\ndef register_recipes(): return []"
LINGER = "import threading\nthreading.Thread(target=threading.Event().wait, name='x').start()\n"


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch):
    monkeypatch.setenv(single.FILES, "")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file into the working directory, for this plugin API unless it says which."""
    monkeypatch.chdir(tmp_path)

    def write(content: str | bytes = MASKING, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        raw = content.encode() if isinstance(content, str) else content
        if path.suffix == ".py" and b"api = " not in raw:
            raw += f"\napi = {API}\n".encode()
        path.write_bytes(raw)
        return path

    return write


def listed(capsys, *words: str) -> dict:
    capsys.readouterr()
    assert main([*words, "plugins", "list", "--json"]) == 0
    return {plugin["name"]: plugin for plugin in json.loads(capsys.readouterr().out)}


def test_the_chapter_is_a_short_file_and_commands_that_run_as_written(write, capsys):
    write(MINE)
    assert len([line for line in MINE.splitlines() if line]) <= 20
    assert len(COMMANDS) == 2
    for command in COMMANDS:
        program, *words = command.split("#")[0].split()
        assert (program, main(words)) == ("dlmkit", 0), capsys.readouterr().err
    out = capsys.readouterr().out
    assert "grid/power: " in out
    assert "failed" not in out


def test_it_is_never_found_by_itself(write, capsys):
    write()
    assert "mine" not in listed(capsys)
    with pytest.raises(PluginError, match=r"no plugin named 'mine' .* name its file by --plugin"):
        Registry.load().find("masking", "mine:mine")
    with pytest.raises(ImportError):
        __import__(f"{single.__name__}.file_mine")


def test_it_is_listed_with_its_path_as_its_package_for_that_command_only(write, capsys):
    path = write()
    plugin = listed(capsys, "--plugin", "mine.py")["mine"]
    assert (plugin["distribution"], plugin["version"], plugin["state"]) == (str(path), "", "ok")
    assert plugin["provides"] == ["masking/mine"]
    assert main(["--plugin", "./mine.py", "components", "show", "masking/mine"]) == 0
    assert f"from {path}\n" in capsys.readouterr().out
    assert "mine" not in listed(capsys)


def test_several_files_go_together_and_one_may_be_named_twice(write, capsys):
    for name in ("one", "two"):
        write(MASKING, f"{name}.py")
    files = ["--plugin", "one.py", "--plugin", "two.py", "--plugin", "./one.py"]
    assert {"one", "two"} <= set(listed(capsys, *files))


def test_it_brings_commands_and_bench_cases_too(write, tmp_path, capsys):
    write(
        f"""{HEAD}
from dlmkit.plugin import Benchmark, Command

@hookimpl
def register_commands():
    return [Command("hello", "says so", "mine:hello")]

@hookimpl
def register_benchmarks():
    return [Benchmark("nothing", "nothing", "mine:set_up")]

def hello(): print("hello")

def set_up(): return lambda: None
"""
    )
    assert main(["--plugin", "mine.py", "mine", "hello"]) == 0
    assert "hello" in capsys.readouterr().out.splitlines()
    assert main(["--plugin", "mine.py", "--help"]) == 0
    listing_of_help = "".join(capsys.readouterr().out.split())  # which breaks long paths
    assert f"From{tmp_path / 'mine.py'}:saysso" in listing_of_help
    case = ["bench", "run", "mine:nothing", "--rounds", "1"]
    assert main(["--plugin", "mine.py", *case]) == 0
    assert str(tmp_path / "mine.py") in capsys.readouterr().out


@pytest.mark.parametrize("name", ["mine", "json", "re"])
def test_its_targets_name_the_file_itself_whatever_else_is_called_so(write, name):
    source = MASKING.replace("mine:build", f"{name}:build") + "\ndef build(config, context): 1 / 0"
    path = write(source, f"{name}.py")
    dlmkit.load_plugin(path)
    with pytest.raises(ZeroDivisionError):
        Registry.load().build("masking", Part(use=f"{name}:mine"), BuildContext(length=4))
    assert Path(sys.modules[name].__file__) != path if name != "mine" else name not in sys.modules
    assert single.re is re


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("there_is_none.py", "no plugin can be read from {path}: No such file or directory"),
        ("folder", "no plugin can be read from {path}: it is a folder, not a file"),
        ("pipe.py", "no plugin can be read from {path}: it is a pipe, not a file"),
        ("mine.txt", "{path} is no plugin: the name of a Python file ends in .py"),
        ("my-own.py", "{path} is no plugin: the name of its file is the plugin's, so it must be"),
        ("1st.py", "{path} is no plugin: the name of its file is the plugin's, so it must be"),
        ("a:b/mine.py", "no plugin can be named at {path}: DLMKIT_PLUGIN_FILES separates by ':'"),
        ("other/same.py", "/same.py and {path} are both plugin 'same': rename one of them"),
    ],
)
def test_a_file_that_cannot_be_a_plugin_is_one_sentence_and_exit_2(
    write, tmp_path, capsys, name, message
):
    for there in ("mine.txt", "my-own.py", "1st.py", "a:b/mine.py", "same.py", "other/same.py"):
        write(name=there)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    assert main(["--plugin", "same.py", "--plugin", name, "plugins", "list"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message.format(path=tmp_path / name) in captured.err
    assert captured.err.count("\n") == 1
    dlmkit.load_plugin("same.py")
    before = os.environ[single.FILES]
    with pytest.raises(UsageError):
        dlmkit.load_plugin(name)
    assert os.environ[single.FILES] == before


BROKEN = [
    (b"def broken(:", "SyntaxError: invalid syntax (mine.py, line 1)"),
    (b"x = '\0'", "SyntaxError: source code"),
    (b"\xff\xfe", "SyntaxError: (unicode error)"),
    (b"import surely_not_there", "ModuleNotFoundError: No module named 'surely_not_there'"),
    (b"x = 1", "mine.py implements no hook: decorate its functions with dlmkit.hookimpl"),
    (NOTHING.encode(), "it declares no component, recipe, model, importer, command or benchmark"),
    (b"api = 99\n" + MASKING.encode(), "it is written for plugin API 99, and dlmkit"),
    (b"import os; os._exit(0)", "it ends the process when it is imported (os._exit(0))"),
    (b"raise SystemExit(3)", "SystemExit: 3"),
    (LINGER.encode() + MASKING.encode(), "its import left a thread running (x)"),
]


@pytest.mark.parametrize(("source", "reason"), BROKEN)
def test_a_file_that_fails_is_listed_and_stops_the_command_that_names_it(
    write, capsys, source, reason
):
    path = write(source)
    plugin = listed(capsys, "--plugin", "mine.py")["mine"]
    assert plugin["state"] == "failed"
    assert reason in plugin["reason"]
    assert main(["--plugin", "mine.py", "recipe", "check", "ddlm_grammar"]) == PluginError.exit_code
    err = capsys.readouterr().err
    assert err.startswith(f"error: plugin 'mine' ({path}) failed to load: ")
    assert reason in err
    assert main(["recipe", "check", "ddlm_grammar"]) == 0
    with pytest.raises(PluginError, match="failed to load: "):
        dlmkit.load_plugin("mine.py")
    assert Registry.load().find("masking", "cdcd:none")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes by fork")
@pytest.mark.parametrize(
    ("source", "limit", "reason"),
    [
        (
            "import faulthandler, os, signal\nfaulthandler.disable()\n"
            "os.kill(os.getpid(), signal.SIGSEGV)",
            60.0,
            "ended the process (SIGSEGV)",
        ),
        ("import threading; threading.Event().wait()", 2.0, "its import did not end within 2 s"),
    ],
)
def test_one_that_crashes_or_hangs_does_not_stop_the_list(write, source, limit, reason):
    single.name(write(source))
    found = {plugin.name: plugin for plugin in listing.plugins(limit=limit)}
    assert reason in found["mine"].reason
    assert "do not name it, by --plugin or in DLMKIT_PLUGIN_FILES" in found["mine"].reason
    assert found["cdcd"].state == "ok"


def test_the_name_of_an_installed_plugin_stays_with_it(write, install, capsys):
    install("acme", MASKING)
    write(name="acme.py")
    write(name="cdcd.py")
    names = [(p.name, p.state, p.reason) for p in _listing("acme.py") if p.name == "acme"]
    reason = "acme 1.0 provides a plugin named 'acme' already: rename the file"
    assert sorted(names) == [("acme", "failed", reason), ("acme", "ok", "")]
    assert main(["--plugin", "cdcd.py", "recipe", "check", "ddlm_grammar"]) == 4
    assert "provides a plugin named 'cdcd' already: rename the file" in capsys.readouterr().err
    assert main(["recipe", "check", "ddlm_grammar", "--set", "masking.use=acme:mine"]) == 0


def _listing(file: str):
    single.name(file)
    found = listing.plugins()
    single.restore("")
    return found


def test_naming_it_is_the_permission_to_load_it(write, capsys, monkeypatch):
    write()
    assert listed(capsys, "--no-plugins", "--plugin", "mine.py")["mine"]["state"] == "ok"
    monkeypatch.setenv("DLMKIT_PLUGINS", "others")
    assert listed(capsys, "--plugin", "mine.py")["mine"]["state"] == "ok"
    single.name("mine.py")
    blocked = {p.name: p.state for p in Registry.load(third_party=False).plugins}
    assert blocked["mine"] == "blocked"


def test_named_again_in_python_it_is_taken_as_it_now_is(write, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    write()
    first = dlmkit.load_plugin("mine.py")
    write(MASKING.replace('"mine", "a m', '"other", "a m'))
    assert Registry.load().find("masking", "mine:mine")  # what was named runs, not what is there
    again = dlmkit.load_plugin("mine.py")
    assert (first.provides, again.provides) == (("masking/mine",), ("masking/other",))
    assert first.sha256 != again.sha256
    assert not list(Path().glob("**/__pycache__"))


def test_child_processes_have_it_and_can_unpickle_its_options(write, tmp_path):
    dlmkit.load_plugin(write())
    options = Registry.load().options("masking", Part(use="mine:mine"))
    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer).__class__.__name__)"
    run = [sys.executable, "-c", program]
    done = subprocess.run(run, input=pickle.dumps(options), capture_output=True, check=True)
    assert done.stdout == b"Mine\n"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    show = [sys.executable, "-m", "dlmkit", "components", "show", "masking/mine"]
    done = subprocess.run(show, cwd=elsewhere, capture_output=True, text=True, check=True)
    assert "masking mine:mine: a masking" in done.stdout


@pytest.mark.parametrize("use", ["mine.py", "./mine.py:mine", "{folder}/mine.py:mine"])
def test_a_recipe_never_names_a_file(write, use):
    path = write("raise SystemExit('it ran')")
    text = f'extends: ddlm_grammar\nmasking: {{use: "{use.format(folder=path.parent)}"}}\n'
    with pytest.raises(DlmkitError, match="names a file: a part is named by its plugin") as caught:
        resolve_text(text, path.parent / "recipe.yaml")
    assert caught.value.exit_code == RecipeError.exit_code


@pytest.mark.parametrize("path", ["/home/alice/evil; rm -rf ~.py", "mine.py\x1b]0;x\x07", "mine"])
def test_what_a_strangers_record_says_of_a_file_is_no_name_to_use(write, tmp_path, path):
    record = {"plugins": [{"name": "mine", "path": path, "sha256": "0" * 64}]}
    write(json.dumps(record), "environment.json")
    said = origin.advice(tmp_path, 'grid: {use: "mine:power"}', Registry.load())
    assert "which is no name and version of a package: ask its author" in said
    assert "--plugin" not in said
    assert "\x1b" not in said


TINY = [
    "train.steps=2",
    "train.stop_after=1",
    "train.validation_rows=2",
    "network.with.width=16",
    "network.with.heads=2",
    "network.with.blocks=1",
    "sample.count=1",
    "sample.steps=2",
    "metric=[]",
    "grid.use=mine:power",
]


def test_a_run_records_the_file_and_a_model_says_when_it_is_missing(write, tmp_path, capsys):
    path = write(MINE)
    sets = [word for key in TINY for word in ("--set", key)]
    command = ["--plugin", "mine.py", "train", "ddlm_grammar", "--out", "run", *sets]
    assert main(command) == 0, capsys.readouterr().err
    digest = dlmkit.load_plugin(path).sha256
    single.restore("")
    (entry,) = [p for p in read_environment(tmp_path / "run")["plugins"] if p["name"] == "mine"]
    assert entry == {"name": "mine", "path": str(path), "sha256": digest}
    assert main(["--plugin", "mine.py", "export", "run", "out"]) == 0
    (entry,) = [p for p in read_environment(tmp_path / "out")["plugins"] if p["name"] == "mine"]
    assert entry["path"] == "mine.py"  # the folder it lay in is not published
    assert "It needs the plugin `mine.py`" in (tmp_path / "out" / "README.md").read_text()
    for model in ("run", "out"):
        capsys.readouterr()
        assert main(["sample", model, "--device", "cpu"]) == PluginError.exit_code
        err = capsys.readouterr().err
        said = f"plugin 'mine' of the file mine.py (sha256 {digest}): name it by --plugin FILE"
        assert said in err
    assert main(["--plugin", "mine.py", "sample", "out", "-n", "1", "--device", "cpu"]) == 0
    path.write_text(MINE + "\n# changed\n")
    capsys.readouterr()
    more = ["--resume", "auto", "--set", "train.stop_after=2"]
    assert main([*command, *more]) == 0
    assert f"plugin mine: {digest[:12]} -> " in capsys.readouterr().err
