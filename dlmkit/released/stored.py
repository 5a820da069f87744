"""The tensors of a released folder: listed by their files' headers, read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dlmkit import documents, files
from dlmkit.core.finite import refuse_non_finite
from dlmkit.core.importer import Conversion
from dlmkit.errors import CheckpointError

WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")

Unpickled = Callable[[Any], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Stored:
    """A tensor of a file: where it is, what it is called there, and its shape and dtype."""

    path: Path
    key: str
    shape: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True)
class Folder:
    """What a folder's files hold. ``tensors`` are listed by the names that an importer knows."""

    tensors: Mapping[str, Stored]
    pickles: Mapping[Path, Mapping[str, Tensor]]
    where: Path | None = None

    def read(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor, file by file; no more than one is in memory because of this."""
        for path in dict.fromkeys(stored.path for stored in self.tensors.values()):
            for name, stored in self.tensors.items():
                if stored.path == path:
                    yield name, self.tensor(stored)

    def tensor(self, stored: Stored) -> Tensor:
        """One tensor, in memory of its own. Raises CheckpointError if it cannot be read."""
        if stored.path in self.pickles:
            return self.pickles[stored.path][stored.key].clone()
        # opened anew each time: pages of a file that stays mapped count as memory in use
        with _readable(stored.path), safe_open(stored.path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(stored.key)
            return tensor.clone()

    def copy_to(
        self, tensors: Mapping[str, Tensor], split: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        """Fill each of ``tensors`` with what ``split`` makes of the saved one and it."""
        for name, tensor in tensors.items():
            saved = self.tensor(self.tensors[name])
            refuse_non_finite([(name, saved)], str(self.tensors[name].path))
            tensor.copy_(split(saved, tensor))


def listed(folder: Path, conversion: Conversion, unpickled: Unpickled | None) -> Folder:
    """The tensors of ``folder``: of its weights, in one file or in shards, and of the files beside
    them, as ``conversion`` says.

    ``unpickled`` makes tensors of what pickles hold, which torch's weights-only loader reads;
    without it they are refused. Raises CheckpointError if a file is missing, cut or altered, or
    if two hold one tensor.
    """
    tensors: dict[str, Stored] = {}
    pickles: dict[Path, Mapping[str, Tensor]] = {}
    for path, prefix, promised in [
        *_weights(folder, conversion.instead),
        *_named(folder, conversion.beside),
    ]:
        if path.suffix in PICKLES:
            pickles[path] = _unpickled(path, unpickled)
            inside = {k: Stored(path, k, t.shape, t.dtype) for k, t in pickles[path].items()}
        else:
            inside = _header(path)
        if promised is not None and promised != set(inside):
            odd = ", ".join(sorted(promised ^ set(inside))[:5])
            raise CheckpointError(
                f"{path} does not hold what its index lists: they differ in {odd}"
            )
        twice = sorted(prefix + key for key in inside if prefix + key in tensors)
        if twice:
            raise CheckpointError(f"{path} and {tensors[twice[0]].path} both hold {twice[0]}")
        tensors |= {prefix + key: stored for key, stored in inside.items()}
    return Folder(tensors, pickles)


def in_file(path: Path) -> Folder:
    """The tensors of one file of safetensors. Raises CheckpointError if it cannot be read."""
    return Folder(_header(path), {}, path)


def _weights(folder: Path, instead: Mapping[str, str]) -> list[tuple[Path, str, set[str] | None]]:
    """The files of the weights, and the tensors that an index promises of each."""
    for name in (WEIGHTS,) if instead else (WEIGHTS, PICKLED):
        if (folder / f"{name}.index.json").is_file():
            return _shards(folder, f"{name}.index.json")
        if (folder / name).is_file():
            return [(folder / name, "", None)]
    if instead and any((folder / name).is_file() for name in instead):
        return _named(folder, instead)
    pickles = sorted(p for p in folder.iterdir() if p.suffix in PICKLES) if folder.is_dir() else []
    if (folder / "model.pt").is_file() or len(pickles) == 1:
        return [(folder / "model.pt" if len(pickles) > 1 else pickles[0], "", None)]
    raise CheckpointError(f"{folder} holds no weights: expected {WEIGHTS}, or its index and shards")


class _Index(documents.Shape):
    weight_map: dict[str, str]


def _shards(folder: Path, index: str) -> list[tuple[Path, str, set[str] | None]]:
    try:
        content = documents.shaped(documents.read(folder / index), _Index)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / index} cannot be read: {files.why(error)}") from error
    promised: dict[str, set[str]] = {}
    for tensor, file in content.weight_map.items():
        if Path(file).name != file or file in ("", ".", ".."):
            raise CheckpointError(f"{folder / index} names {files.quoted(file)}, no file beside it")
        promised.setdefault(file, set()).add(tensor)
    return [(folder / file, "", names) for file, names in sorted(promised.items())]


def _named(folder: Path, prefixes: Mapping[str, str]) -> list[tuple[Path, str, set[str] | None]]:
    return [(folder / name, prefix, None) for name, prefix in prefixes.items()]


def _header(path: Path) -> dict[str, Stored]:
    with _readable(path), safe_open(path, framework="pt") as file:
        return {key: _stored(path, key, file) for key in file.keys()}  # noqa: SIM118


def _stored(path: Path, key: str, file: Any) -> Stored:
    piece = file.get_slice(key)
    shape = torch.Size(piece.get_shape())
    # of a single number no slice can be taken
    part = piece[tuple(slice(0, 0) for _ in shape)] if shape else file.get_tensor(key)
    return Stored(path, key, shape, part.dtype)


class _readable:
    """Turns what goes wrong while ``path`` is read into a CheckpointError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, FileNotFoundError):
            raise CheckpointError(f"{self.path} is missing") from error
        if isinstance(error, OSError | SafetensorError):
            raise CheckpointError(f"{self.path} cannot be read: {files.why(error)}") from error


def _unpickled(path: Path, unpickled: Unpickled | None) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    if unpickled is None:
        raise CheckpointError(
            f"{path} is a pickle, which can run code: 'dlmkit import --pickled {path.parent} --out "
            "DIR' reads its tensors alone, by torch's weights-only loader, and writes safetensors"
        )
    try:
        return unpickled(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    except Exception as error:  # whatever a pickle makes of the loader
        raise CheckpointError(f"{path} cannot be read: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
