"""Every row of the plugin failure table, with real packages on the path."""

from pathlib import Path

import pytest

from dlmkit.cli.app import main
from dlmkit.plugin import API
from dlmkit.registry.lookup import PluginInfo, Registry
from dlmkit.version import __version__

GOOD = """
from dlmkit import Component, Config, hookimpl

class Options(Config):
    "No options."

@hookimpl
def register_components():
    return [Component("masking", "mine", "a masking", Options, "nowhere:Mine")]
"""

HEAD = """
from dlmkit import Component, Config, hookimpl
from dlmkit.plugin import Recipe
from collections.abc import Callable
from dlmkit.plugin import Benchmark, Command, ShippedModel
from pathlib import Path

class Options(Config):
    "No options."

class Open(Config, extra="allow"):
    "Takes anything."

class Odd(Config):
    function: Callable[[], int]

@hookimpl
def register_components():
    return """


def info(name: str, distribution: str | None = None) -> PluginInfo:
    plugins = [p for p in Registry.load().plugins if p.name == name]
    chosen = [p for p in plugins if distribution in (None, p.distribution)]
    assert len(chosen) == 1
    return chosen[0]


def test_a_plugin_is_listed_with_its_package_and_what_it_provides(install):
    install("acme-parts", GOOD, plugin="acme", version="2.3")
    assert info("acme") == PluginInfo("acme", "2.3", "acme-parts", "ok", "", ("masking/mine",))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import surely_not_there", "ModuleNotFoundError: No module named 'surely_not_there'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise SystemExit", "SystemExit"),
        ("raise GeneratorExit('stop')", "GeneratorExit: stop"),
        ("raise ValueError('two\\n  lines')", "ValueError: two lines"),
        ("def broken(:", "SyntaxError: invalid syntax (bad.py, line 1)"),
        ("class E(Exception):\n  def __str__(self): 1 / 0\nraise E", "E"),
        (
            "from dlmkit import hookimpl\n@hookimpl\ndef register_recipes(): return []\n"
            "def register_components(): return []",
            "register_components is not decorated with dlmkit.hookimpl",
        ),
        ("x = 1", "bad implements no hook: decorate its functions with dlmkit.hookimpl"),
        (
            "from dlmkit import hookimpl\n@hookimpl\ndef register_component(): return []",
            "unknown hook 'register_component', did you mean 'register_components' or "
            "'register_commands' or 'register_models'?",
        ),
        (
            "from dlmkit import hookimpl\n@hookimpl\ndef on_step(): return []",
            "unknown hook 'on_step'; hooks are register_benchmarks, register_commands, "
            "register_components, register_importers, register_models, register_recipes",
        ),
        (
            "from dlmkit import hookimpl\n@hookimpl\ndef register_recipes(): 1 / 0",
            "ZeroDivisionError: division by zero",
        ),
        (
            "from dlmkit import hookimpl\n@hookimpl\ndef register_recipes(): pass",
            "register_recipes() returned None, not a list",
        ),
        (
            "from dlmkit import hookimpl\n@hookimpl\ndef register_recipes(): return 'x'",
            "register_recipes() returned a str, not a list",
        ),
    ],
)
def test_a_broken_module_is_one_failed_plugin(install, source, reason):
    install("bad", source)
    assert info("bad") == PluginInfo("bad", "1.0", "bad", "failed", reason, ())
    assert info("cdcd").state == "ok"


def test_a_hook_that_asks_for_arguments_fails(install):
    install("bad", "from dlmkit import hookimpl\n@hookimpl\ndef register_recipes(x): return []")
    assert info("bad").state == "failed"
    assert "Argument(s) {'x'} are declared in the hookimpl" in info("bad").reason


@pytest.mark.parametrize(
    ("declaration", "reason"),
    [
        ('["mine"]', "register_components() returned a str: 'mine'"),
        (
            '[Component("scheduel", "x", "y", Options, "a:b")]',
            "component 'x' is of unknown kind 'scheduel', did you mean 'schedule'?",
        ),
        (
            '[Component("masking", "a:b", "y", Options, "a:b")]',
            "masking 'a:b': a name is lower-case letters, digits, dots and hyphens",
        ),
        (
            '[Component("masking", "x", " ", Options, "a:b")]',
            "masking 'x': the summary must be a line of text",
        ),
        (
            '[Component("masking", "x", "y", dict, "a:b")]',
            "masking 'x': config must be a subclass of dlmkit.Config, not <class 'dict'>",
        ),
        (
            '[Component("masking", "x", "y", Open, "a:b")]',
            "masking 'x': Open must stay frozen and refuse unknown options",
        ),
        (
            '[Component("masking", "x", "y", Odd, "a:b")]',
            "masking 'x': the options of Odd: Cannot generate a JsonSchema for "
            "core_schema.CallableSchema",
        ),
        (
            '[Component("masking", "x", "y", Options, "a.b")]',
            "masking 'x': target 'a.b' is not 'module:callable'",
        ),
        (
            '[Component("masking", "x", "y", Options, "a:b", provides="mask")]',
            "masking 'x': provides must be a frozenset of names, not 'mask'",
        ),
        (
            '[Component("masking", "x", "y", Options, "a:b", example=3)]',
            "masking 'x': example must be a mapping from names, not 3",
        ),
        (
            '[Component("masking", "x", "y", Options, "a:b")] * 2',
            "masking 'x' is declared twice",
        ),
        (
            '[Component("masking", "x", "y", Options, "a"), '
            'Component("grid", "X", "y", Options, "a:b")]',
            "masking 'x': target 'a' is not 'module:callable'; "
            "grid 'X': a name is lower-case letters, digits, dots and hyphens",
        ),
    ],
)
def test_a_bad_declaration_fails_the_plugin(install, declaration, reason):
    install("bad", HEAD + declaration)
    assert info("bad") == PluginInfo("bad", "1.0", "bad", "failed", reason, ())


def test_a_recipe_without_its_file_fails_the_plugin(install):
    recipe = '[]\n@hookimpl\ndef register_recipes(): return [Recipe("x", Path("/dev/null/x"))]'
    install("bad", HEAD + recipe)
    assert info("bad").reason == "recipe 'x': there is no file /dev/null/x"


@pytest.mark.parametrize(
    ("hook", "declaration", "reason"),
    [
        ("models", "'x'", "register_models() returned a str: 'x'"),
        (
            "models",
            'ShippedModel("x", "y", Path("/dev/null/x"))',
            "model 'x': there is no folder /dev/null/x",
        ),
        ("commands", "'x'", "register_commands() returned a str: 'x'"),
        ("commands", 'Command("x", "", "a:b")', "command 'x': the summary must be a line of text"),
        ("commands", 'Command("x", "y", "a")', "command 'x': target 'a' is not 'module:callable'"),
        (
            "commands",
            'Command("--x", "y", "a:b")',
            "command '--x': a name is lower-case letters, digits, dots and hyphens",
        ),
        (
            "benchmarks",
            'Benchmark("x", "y", "a")',
            "benchmark 'x': target 'a' is not 'module:callable'",
        ),
    ],
)
def test_other_bad_declarations_fail_the_plugin(install, hook, declaration, reason):
    install("bad", f"{HEAD}[]\n@hookimpl\ndef register_{hook}(): return [{declaration}]")
    assert (info("bad").state, info("bad").reason) == ("failed", reason)


def test_everything_a_plugin_brings_is_listed(install, tmp_path):
    install(
        "acme",
        GOOD
        + f"""
from pathlib import Path
from dlmkit.plugin import Benchmark, Command, ShippedModel

@hookimpl
def register_models():
    return [ShippedModel("tiny", "a tiny model", Path({str(tmp_path)!r}))]

@hookimpl
def register_commands():
    return [Command("hello", "says hello", "nowhere:hello")]

@hookimpl
def register_benchmarks():
    return [Benchmark("speed", "a case", "nowhere:speed")]
""",
    )
    assert info("acme").provides == (
        "masking/mine",
        "benchmark/speed",
        "command/hello",
        "model/tiny",
    )
    registry = Registry.load()
    assert registry.model("tiny") == registry.model("acme:tiny")
    assert registry.model("tiny").path == tmp_path
    assert registry.benchmarks()["acme:speed"].summary == "a case"


@pytest.mark.parametrize("version", [API + 1, API - 1])
def test_a_plugin_for_another_api_is_refused_before_it_runs(install, version):
    install("acme", f"api = {version}\nfrom dlmkit.core import nothing_of_this_name")
    table = (
        ", or change it: CONTRIBUTING.md of dlmkit, section 'Versions of the interfaces', has a "
        "table of what is different"
    )
    assert (info("acme").state, info("acme").reason) == (
        "failed",
        f"it is written for plugin API {version}, and dlmkit {__version__} offers {API}: install "
        f"a version of acme for {API}, or a dlmkit that offers {version}"
        + (table if version < API else ""),
    )


def test_the_table_that_a_refusal_names_is_there():
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    _, _, section = text.partition("\n### Versions of the interfaces\n")
    section, _, _ = section.partition("\n## ")
    assert f"| API {API - 1} | API {API} |" in section


def test_a_plugin_that_names_no_api_is_one_for_the_first(install, site):
    install("acme", GOOD)
    module = site / "acme.py"
    module.write_text(module.read_text().replace(f"api = {API}", ""))
    assert "written for plugin API 1, and" in info("acme").reason


def test_a_recipe_that_needs_a_plugin_for_another_api_says_so(install, capsys):
    install("acme", f"api = {API - 1}")
    assert main(["recipe", "show", "ddlm_grammar", "--set", "masking.use=acme:mine"]) == 4
    assert "plugin 'acme' (acme 1.0) failed to load: it is written for" in capsys.readouterr().err


def test_a_plugin_that_names_this_api_loads(install):
    install("acme", f"api = {API}" + GOOD)
    assert info("acme").state == "ok"


def test_an_entry_point_must_name_a_module(install):
    install("bad", GOOD, entry_points="[dlmkit]\nbad = bad:Options\n")
    assert info("bad").reason == "the entry point must name a module, and 'bad:Options' does not"


def test_a_name_that_recipes_cannot_write_fails(install):
    install("bad", GOOD, entry_points="[dlmkit]\nb:d = bad\n")
    reason = "a plugin's name is letters, digits, dots, hyphens and underscores"
    assert info("b:d").reason == reason


def test_one_package_with_one_name_twice_fails(install):
    install("bad", GOOD, entry_points="[dlmkit]\ntwin = bad\ntwin = bad.plugin\n")
    twins = [p.reason for p in Registry.load().plugins if p.name == "twin"]
    assert twins == ["bad 1.0 provides a plugin named 'twin' twice"] * 2


def test_a_package_without_metadata_is_still_listed(install, site):
    install("anonymous", GOOD)
    (site / "anonymous-1.0.dist-info" / "METADATA").unlink()
    assert info("anonymous").distribution == "(a package without a name)"
    assert info("anonymous").state == "ok"


def test_malformed_metadata_is_one_failed_plugin(install):
    install("bad", GOOD, entry_points="[dlmkit]\nno equals sign\n")
    assert info("bad").state == "failed"
    assert info("bad").reason.startswith("its entry_points.txt is malformed")


def test_two_packages_with_one_name_both_fail_and_name_both(install):
    install("first-pack", GOOD, plugin="twin")
    install("second-pack", GOOD, plugin="twin", version="0.2")
    reason = (
        "first-pack 1.0 and second-pack 0.2 both provide a plugin named 'twin': "
        "keep one of them installed"
    )
    for package in ("first-pack", "second-pack"):
        assert (info("twin", package).state, info("twin", package).reason) == ("failed", reason)


def test_a_third_party_cannot_take_a_built_in_down(install):
    install("impostor", GOOD, plugin="cdcd")
    assert info("cdcd", "dlmkit").state == "ok"
    assert info("cdcd", "impostor").state == "failed"
    assert info("cdcd", "impostor").reason == (
        "the name 'cdcd' belongs to a plugin of dlmkit itself: "
        "impostor 1.0 must choose another, or be uninstalled"
    )
    assert Registry.load().find("schedule", "cdcd:time-warp").distribution == "dlmkit"


def test_the_name_of_dlmkit_is_reserved(install):
    install("impostor", GOOD, plugin="dlmkit")
    assert info("dlmkit").reason == "the plugin name 'dlmkit' is reserved"


def test_only_third_parties_that_are_listed_load(install, monkeypatch):
    for name in ("one", "two"):
        install(name, GOOD)
    monkeypatch.setenv("DLMKIT_PLUGINS", " two , three")
    states = {p.name: p.state for p in Registry.load().plugins}
    assert (states["one"], states["two"], states["cdcd"]) == ("blocked", "ok", "ok")
    assert info("one").reason == "DLMKIT_PLUGINS does not list it"
    assert Registry.load().notes == [
        "DLMKIT_PLUGINS lists 'three', which no installed package provides"
    ]


def test_an_empty_list_allows_none(install, monkeypatch):
    install("one", "raise SystemExit('imported all the same')")
    monkeypatch.setenv("DLMKIT_PLUGINS", "")
    assert (info("one").state, info("one").reason) == (
        "blocked",
        "third-party plugins are left out (--no-plugins, or an empty DLMKIT_PLUGINS)",
    )


def test_third_parties_can_be_left_out_by_the_caller(install):
    install("one", "raise SystemExit('imported all the same')")
    states = {p.name: p.state for p in Registry.load(third_party=False).plugins}
    assert (states["one"], states["cdcd"]) == ("blocked", "ok")


def test_a_blocked_twin_leaves_the_other_usable(install, monkeypatch):
    install("impostor", GOOD, plugin="cdcd")
    monkeypatch.setenv("DLMKIT_PLUGINS", "")
    assert info("cdcd", "impostor").state == "blocked"


def test_the_user_may_interrupt_a_plugin(install):
    install("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Registry.load()


def test_what_a_plugin_prints_is_no_result(install, capsys):
    install("chatty", "print('hello')" + GOOD)
    Registry.load()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")


def test_the_order_is_fixed(install):
    for name in ("zebra", "ant", "mole"):
        install(name, GOOD)
    names = [p.name for p in Registry.load().plugins]
    assert names == sorted(names)
    assert {"ant", "mole", "zebra"} < set(names)


def test_a_shadowed_copy_of_a_package_is_not_a_second_one(install, site, monkeypatch, tmp_path):
    install("acme", GOOD)
    older = tmp_path / "older" / "acme-0.1.dist-info"
    older.mkdir(parents=True)
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: Acme\nVersion: 0.1\n")
    (older / "entry_points.txt").write_text("[dlmkit]\nacme = acme\n")
    monkeypatch.syspath_prepend(older.parent)
    monkeypatch.syspath_prepend(site)
    assert (info("acme").version, info("acme").state) == ("1.0", "ok")
