"""Bad recipes and exactly what is said of them."""

from pathlib import Path

import pytest

from dlmkit.errors import DlmkitError, PluginError, RecipeError, UsageError
from dlmkit.recipe.load import load_recipe


def problems(reference, registry, *overrides) -> tuple[int, list[str]]:
    with pytest.raises(DlmkitError) as caught:
        load_recipe(reference, overrides, registry)
    return caught.value.exit_code, str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "  steps: 100",
            "  steps: 100\n  stpes: 3",
            "15:3: train.stpes: unknown key, did you mean 'steps'?",
        ),
        ("summary:", "extend: x\nsummary:", "1:1: extend: unknown key, did you mean 'extends'?"),
        ("seed: 3", "seed: three", "2:7: seed: expected an integer, got 'three'"),
        ("seed: 3", 'seed: "3"', "2:7: seed: expected an integer, got '3'"),
        ("seed: 3", "seed: true", "2:7: seed: expected an integer, got True"),
        ("seed: 3", "seed: 1.5", "2:7: seed: expected an integer, got 1.5"),
        ("steps: 100", "steps: 0", "14:10: train.steps: expected greater than 0, got 0"),
        ("  steps: 100", "  {}", "14:3: train.steps: is missing, and has no default"),
        (
            "seed: 3",
            "seed: 3\nattention: sdap",
            "3:12: attention: expected 'auto', 'sdpa', 'xformers' or 'flex', got 'sdap', "
            "did you mean 'sdpa'?",
        ),
        ("data: {use: words}\n", "", "1:1: data: is missing, and has no default"),
        (
            "data: {use: words}",
            "data: words",
            "3:7: data: expected {use: NAME, with: {OPTION: VALUE}}, got 'words'",
        ),
        (
            "data: {use: words}",
            "data: {use: words, wiht: {}}",
            "3:20: data.wiht: unknown key, did you mean 'with'?",
        ),
        (
            "use: never",
            "use: nevr",
            "9:16: masking.use: nobody provides a masking named 'nevr', did you mean 'never'?",
        ),
        (
            "use: never",
            "use: toy:nevr",
            "9:16: masking.use: plugin 'toy' provides no masking 'nevr', did you mean 'never'?",
        ),
        ("{high: 80}", "{hihg: 80}", "6:10: schedule.with.hihg: unknown key, did you mean 'high'?"),
        (
            "{high: 80}",
            "{high: .nan}",
            "6:16: schedule.with.high: expected greater than 0, got nan",
        ),
        (
            "{high: 80}",
            "{shape: straigt}",
            "6:17: schedule.with.shape: expected 'straight' or 'curved', got 'straigt', "
            "did you mean 'straight'?",
        ),
        (
            "{high: 80}",
            "{low: 90, high: 80}",
            "6:9: schedule.with: low (90.0) must lie below high (80.0)",
        ),
        (
            "{count: 2}",
            "{count: 2, tail: {hgih: 2}}",
            "8:48: network.with.tail.hgih: unknown key, did you mean 'high'?",
        ),
        (
            ", with: {count: 2}",
            "",
            "8:16: network.with.count: is missing, and has no default",
        ),
        (
            "use: never",
            "use: mixed, with: {parts: [{use: never}, {use: ranged, with: {low: x}}]}",
            "9:78: masking.with.parts.1.with.low: expected a number, got 'x'",
        ),
        (
            "use: never",
            "use: mixed, with: {parts: [{use: never}], named: {a: {use: nver}}}",
            "9:70: masking.with.named.a.use: "
            "nobody provides a masking named 'nver', did you mean 'never'?",
        ),
        (
            "use: never",
            "use: mixed, with: {parts: []}",
            "9:37: masking.with.parts: list should have at least 1 item after validation, not 0",
        ),
        (
            "use: plane",
            "use: grid-of-ids",
            "8:10: network: network toy:reader requires 'gaussian', which no other part of this "
            "recipe provides",
        ),
        (
            "seed: 3",
            "seed: 3\nmetric: {use: length}",
            "3:9: metric: expected a list, got a mapping",
        ),
    ],
)
def test_one_problem(changed, registry, before, after, message):
    code, lines = problems(changed(before, after), registry)
    assert code == RecipeError.exit_code
    found = lines[0].partition("; not loaded")[0].partition(" (provided by")[0]
    assert found == f"r.yaml:{message}"
    assert len(lines) == 1 or "requires 'gaussian'" in lines[1]


def test_a_missing_capability_names_who_provides_it(changed, registry):
    reference = changed("grid: {use: even}", "grid: {use: even}\nguidance: [{use: push}]")
    assert problems(reference, registry)[1] == [
        "r.yaml:13:12: guidance.0: guidance toy:push requires 'dropout', "
        "which no other part of this recipe provides (nothing installed provides it)"
    ]
    reference = changed("use: plane", "use: grid-of-ids")
    assert "space toy:plane" in problems(reference, registry)[1][0].partition("provided by")[2]


def test_all_problems_at_once_in_the_order_of_the_file(write, registry):
    reference = write("""\
        seed: x
        seed: 4
        data: {use: wrods}
        schedule: {use: ramp, with: {low: -1, hgih: 3}}
        space: &s {use: plane}
        network: {use: reader, with: {count: 2}}
        masking: {use: never}
        objective: {use: guess, with: {a: 1}}
        sampler: {use: walk}
        grid: {use: even}
        train: {}
        """)
    code, lines = problems(reference, registry, "length=0", "grid.use=evne", "train.ema=2")
    assert code == 3
    assert [line.partition("; not loaded")[0] for line in lines] == [
        "r.yaml:1:7: seed: expected an integer, got 'x'",
        "r.yaml:2:1: the key 'seed' is given twice (first in line 1)",
        "r.yaml:3:13: data.use: nobody provides a data named 'wrods', did you mean 'words'?",
        "r.yaml:4:35: schedule.with.low: expected greater than 0, got -1",
        "r.yaml:4:39: schedule.with.hgih: unknown key, did you mean 'high'?",
        "r.yaml:5:8: space: anchors and aliases (&s) are not allowed: repeat it",
        "r.yaml:8:32: objective.with.a: unknown key; there are no options",
        "r.yaml:11:8: train.steps: is missing, and has no default",
        "--set grid.use: nobody provides a grid named 'evne', did you mean 'even'?",
        "--set length: expected greater than 0, got 0",
        "--set train.ema: expected less than 1, got 2",
    ]


def test_a_plugin_that_is_not_installed_is_exit_4(changed, registry):
    assert problems(changed("use: never", "use: acme:never"), registry) == (
        PluginError.exit_code,
        [
            "r.yaml:9:16: masking.use: no plugin named 'acme' is installed; install the package "
            "that provides it, or name its file by --plugin ('dlmkit plugins list' shows "
            "what there is)"
        ],
    )


def test_a_plugin_that_failed_is_exit_4_and_says_why(changed, install, registry):
    install("acme", "import surely_not_there")
    reloaded = type(registry).load()
    assert problems(changed("use: never", "use: acme:never"), reloaded) == (
        PluginError.exit_code,
        [
            "r.yaml:9:16: masking.use: plugin 'acme' (acme 1.0) failed to load: "
            "ModuleNotFoundError: No module named 'surely_not_there'"
        ],
    )


def test_a_recipe_that_is_also_invalid_is_exit_3(changed, registry):
    reference = changed("use: never", "use: acme:never")
    assert problems(reference, registry, "seed=x")[0] == RecipeError.exit_code


def test_a_validator_that_breaks_is_the_plugins_fault(changed, registry):
    assert problems(changed("use: ramp\n  with: {high: 80}", "use: buggy"), registry) == (
        PluginError.exit_code,
        ["r.yaml:5:8: schedule.with: Buggy cannot check this: KeyError: 'oops'"],
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "r.yaml: the file is empty; a recipe is a mapping of keys to values"),
        (b"# nothing\n", "r.yaml: the file is empty; a recipe is a mapping of keys to values"),
        (b"- a\n", "r.yaml:1:1: a recipe is a mapping of keys to values, not a list"),
        (b"words\n", "r.yaml:1:1: a recipe is a mapping of keys to values, not 'words'"),
        (b"a: \xff\n", "r.yaml: not UTF-8 text (byte 3: invalid start byte)"),
        (b"a: \x01\n", "r.yaml:1:4: the character U+0001 is not allowed in YAML"),
        (b"a: " + b"[" * 100_000, "r.yaml:1:43: nested more than 40 levels deep"),
        (b"a: " * 2, "r.yaml:1:5: not YAML: mapping values are not allowed here"),
        (
            b"a:\n\tb: 1\n",
            "r.yaml:2:1: not YAML: found character '\\t' that cannot start any token "
            "(while scanning for the next token)",
        ),
        (b"#" * 1_000_001, "r.yaml cannot be read as a recipe: it has more than 1,000,000 bytes"),
    ],
)
def test_what_is_no_recipe_at_all(write, registry, content, message):
    Path(write()).write_bytes(content)
    assert problems("r.yaml", registry) == (3, [message])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "2:1: the key 'a' is given twice (first in line 1)"),
        ("b: {a: 1, a: 2}", "1:11: b: the key 'a' is given twice (first in line 1)"),
        ("a: *x", "1:4: a: anchors and aliases (*x) are not allowed: repeat it"),
        ("<<: {a: 1}", "1:1: merge keys (<<) are not allowed: use extends, or repeat it"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "1:4: a: tags (tag:yaml.org,2002:python/object/apply:os.system) are not allowed: "
            "recipes hold plain values",
        ),
        ("a: [1, !x 2]", "1:8: a.1: tags (!x) are not allowed: recipes hold plain values"),
        ("1: a", "1:1: a key must be text, and 1 is not: quote it"),
        ("true: a", "1:1: a key must be text, and true is not: quote it"),
        ("? [a]\n: b", "1:3: a key must be text"),
        ("a: 1\n---\nb: 2", "2:1: a recipe is one document, and this starts a second one"),
        ("%YAML 1.1\n---\na: 1", "2:1: recipes are YAML 1.2: leave the %YAML line out"),
        ('a: "\\ud800"', "1:4: a: half of a surrogate pair is not text"),
    ],
)
def test_what_strict_yaml_refuses(write, registry, text, message):
    lines = problems(write(text), registry)[1]
    assert f"r.yaml:{message}" in lines


def test_a_folder_is_no_recipe(write, registry):
    write()
    Path("folder.yaml").mkdir()
    Path("folder").mkdir()
    assert problems("folder.yaml", registry)[1] == [
        "folder.yaml cannot be read as a recipe: it is a folder, not a file"
    ]
    assert problems("folder", registry)[1][0].endswith(
        "; folder is a folder, and a recipe is a file"
    )


def test_a_missing_recipe_names_the_shipped_ones(write, registry):
    write()
    code, lines = problems("ddlm_gramar", registry)
    assert (code, len(lines)) == (3, 1)
    assert lines[0].startswith("there is no recipe named 'ddlm_gramar'; shipped recipes are ")
    assert ", did you mean 'ddlm_grammar'" in lines[0]
    assert problems("nowhere/ddlm_grammar.yaml", registry) == (
        3,
        [
            "there is no recipe file nowhere/ddlm_grammar.yaml; "
            "the shipped recipe is called 'ddlm_grammar'"
        ],
    )
    assert problems("r.yml", registry)[1] == ["there is no recipe file r.yml"]
    assert problems("acme:x", registry) == (
        4,
        ["recipe 'acme:x': no plugin named 'acme' is installed"],
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stpes=3", "--set train.stpes: unknown key, did you mean 'steps'?"),
        ("seed=x", "--set seed: expected an integer, got 'x'"),
        ("seed=", "--set seed: expected an integer, got nothing"),
        ("seed.x=1", "--set seed.x: seed: expected an integer, got a mapping"),
        (
            "seed=[",
            "--set seed: not YAML: expected the node content, but found '<stream end>' "
            "(while parsing a flow node)",
        ),
        ("seed=*x", "--set seed: anchors and aliases (*x) are not allowed: repeat it"),
        (
            "schedule.use=stair",
            "--set schedule.use: schedule.with.count: is missing, and has no default",
        ),
        ("metric.0.use=lenght", "--set metric.0.use: nobody provides a metric named 'lenght'"),
    ],
)
def test_problems_of_an_override(write, registry, override, message):
    lines = problems(write(), registry, override)[1]
    assert len(lines) == 1
    assert lines[0].startswith(message)


def test_an_item_that_is_not_there(write, registry):
    start = "metric=[{use: length}]"
    assert problems(write(), registry, start, "metric.2.with.low=1")[1] == [
        "--set metric.2.with.low: metric: '2' is not one of the 1 items, which count from 0"
    ]


@pytest.mark.parametrize("override", ["seed", "=3", "a..b=3", ".=1", ".".join("a" * 50) + "=1"])
def test_what_is_no_override(write, registry, override):
    with pytest.raises(UsageError, match=r"^--set "):
        load_recipe(write(), [override], registry)
