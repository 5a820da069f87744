"""Shape annotations are checked while the tests run, by beartype, as the modules are imported."""

from pathlib import Path

from jaxtyping import install_import_hook

ROOT = Path(__file__).parent.parent
FOLDERS = ["dlmkit/core", "dlmkit/evaluation", "dlmkit/sampling", "dlmkit/training", "plugins/*"]
LEFT_OUT = {
    "__init__",
    "plugin",  # declarations, without tensors
    "configs",
    "attention",  # torch.compile cannot see through the checks
}


def checked_modules() -> list[str]:
    """The modules whose functions check the shapes of what they get and return."""
    files = [file for folder in FOLDERS for file in sorted(ROOT.glob(f"{folder}/*.py"))]
    names = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removeprefix("plugins.")
        for file in files
        if file.stem not in LEFT_OUT
    ]
    return ["dlmkit.noise", "dlmkit.rows", *names]


install_import_hook(checked_modules(), "beartype.beartype")
