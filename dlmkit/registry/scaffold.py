"""A new plugin package from templates: complete, working, and checked by the conformance kit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

from dlmkit.errors import UsageError
from dlmkit.plugin import KINDS, PROJECT
from dlmkit.registry.declarations import did_you_mean
from dlmkit.registry.lookup import Registry

TEMPLATES = Path(__file__).with_name("templates")

IMPORTER = "importer"
"""A family of released models, which is no kind of part."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class Sketch:
    """What a kind's template says: its heading (part, summary, ...) and its named sections."""

    heading: dict[str, str]
    sections: dict[str, str]


def sketch(kind: str) -> Sketch:
    """The template of ``kind``. Raises UsageError if there is no such kind."""
    if kind not in KINDS:
        guess = did_you_mean(kind, KINDS) or f"; kinds are {', '.join((*KINDS, IMPORTER))}"
        raise UsageError(f"there is no kind of component {kind!r}{guess}")
    text = (TEMPLATES / "kinds" / f"{kind}.txt").read_text(encoding="utf-8")
    head, *rest = re.split(r"^--- (\w+)\n", text, flags=re.MULTILINE)
    heading = dict(line.split(": ", 1) for line in head.splitlines())
    return Sketch(heading, dict(zip(rest[::2], rest[1::2], strict=True)))


def check_name(name: str, registry: Registry) -> None:
    """Raise UsageError unless ``name`` can be a plugin's and a package's name."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"a plugin cannot be called {name!r}: a name is letters, digits, dots, hyphens and "
            f"underscores, and begins and ends with a letter or digit"
        )
    if name == PROJECT or any(p.name == name and p.built_in for p in registry.loaded):
        raise UsageError(f"the name {name!r} belongs to dlmkit itself; choose another")


def files(name: str, kind: str) -> dict[str, str | bytes]:
    """The files of the package, by their paths inside of its folder."""
    package = f"dlmkit_{re.sub(r'[.-]', '_', name)}"
    if kind == IMPORTER:
        return _importer(name, package)
    sketched = sketch(kind)
    values = {
        "name": name,
        "kind": kind,
        "distribution": f"dlmkit-{name}",
        "package": package,
        "module": kind,
        "part": sketched.heading["part"],
        "summary": sketched.heading["summary"],
        "target": sketched.heading["target"],
        "extends": sketched.heading.get("extends", "ddlm_grammar"),
        "capabilities": _capabilities(sketched.heading),
        "options": sketched.sections["options"].strip(),
    }
    values["recipe"] = Template(sketched.sections["recipe"].strip()).substitute(values)

    def render(template: str) -> str:
        text = (TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
        return Template(text).substitute(values)

    return {
        "pyproject.toml": render("pyproject.toml"),
        "README.md": render("README.md"),
        ".github/workflows/test.yml": render("ci.yml"),
        f"{package}/__init__.py": f'"""{values["summary"].capitalize()}."""\n',
        f"{package}/plugin.py": render("plugin.py"),
        f"{package}/{kind}.py": Template(sketched.sections["module"]).substitute(values),
        f"{package}/demo.yaml": render("demo.yaml"),
        "tests/test_conformance.py": render("test_conformance.py"),
    }


def _importer(name: str, package: str) -> dict[str, str | bytes]:
    """The files of a package with an importer and its golden folder."""
    summary = "models of a family that others released, opened by dlmkit"
    values = {"name": name, "distribution": f"dlmkit-{name}", "package": package}
    values["summary"] = summary

    def render(template: str) -> str:
        text = (TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
        return Template(text).substitute(values)

    golden = (TEMPLATES / "importer" / "golden").iterdir()
    return {
        "pyproject.toml": render("pyproject.toml"),
        "README.md": render("importer/README.md"),
        ".github/workflows/test.yml": render("importer/ci.yml"),
        "make_golden.py": render("importer/make_golden.py"),
        f"{package}/__init__.py": f'"""{summary.capitalize()}."""\n',
        f"{package}/plugin.py": render("importer/plugin.py"),
        f"{package}/importer.py": render("importer/importer.py"),
        **{f"{package}/golden/{path.name}": path.read_bytes() for path in sorted(golden)},
        "tests/test_conformance.py": render("test_conformance.py"),
    }


def _capabilities(heading: dict[str, str]) -> str:
    lines = (
        f"\n            {field}=frozenset({{{', '.join(map(_quoted, heading[field].split()))}}}),"
        for field in ("provides", "requires")
        if field in heading
    )
    return "".join(lines)


def _quoted(word: str) -> str:
    return f'"{word}"'


def write(name: str, kind: str, registry: Registry, parent: Path) -> Path:
    """Write the package into a new folder of ``parent``, and return the folder.

    Raises UsageError for a bad name or kind, or if the folder exists.
    """
    check_name(name, registry)
    contents = files(name, kind)
    folder = parent / f"dlmkit-{name}"
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise UsageError(f"{folder} exists already; choose another name or remove it") from error
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}") from error
    for path, text in contents.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder
