"""Tensors of which every process writes and reads its part, by ``torch.distributed.checkpoint``.

The files are safetensors, of that package's Hugging Face storage: its own format lists what it
holds in a pickle.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlmkit.core.finite import refuse_non_finite
from dlmkit.errors import CheckpointError
from dlmkit.released.stored import Folder, Stored

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

PIECE = 64 << 20
"""Bytes of a process's part of one file, but for larger tensors: what writing it takes on top."""


def write(
    folder: Path, tensors: Mapping[str, Tensor], group: ProcessGroup, later: bool
) -> Future[Any]:
    """Write this process's parts of ``tensors``, which all processes name alike, into ``folder``.

    With ``later`` a copy of them, in a thread that talks to the others over ``group``. Collective.
    """
    import torch.distributed.checkpoint as dcp

    done, files = 0, {}
    for name, tensor in tensors.items():
        files[name] = done // (PIECE * group.size()) + 1
        done += tensor.numel() * tensor.itemsize
    writer = dcp.HuggingFaceStorageWriter(str(folder), files, save_distributed=True)
    if later:
        future = dcp.async_save(dict(tensors), storage_writer=writer, process_group=group)
        assert isinstance(future, Future)
        return future
    written: Future[Any] = Future()
    try:
        written.set_result(dcp.save(dict(tensors), storage_writer=writer, process_group=group))
    except BaseException as error:
        written.set_exception(error)
    return written


def mine(name: str, rank: int) -> bool:
    """Whether process ``rank`` writes the file ``name``."""
    return name.startswith(f"shard-{rank + 1:05}-")


def finish(written: Future[Any]) -> None:
    """Wait for :func:`write`, and raise what it failed at in whichever process."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        written.result()
    except CheckpointException as error:  # a BaseException
        rank, (cause, _) = next(iter(error.failures.items()))
        if isinstance(cause, OSError):
            raise cause from error
        raise RuntimeError(f"process {rank}: {cause}") from error


class Shards(Folder):
    """The tensors of ``path`` whose names begin with ``prefix``, without it."""

    def __init__(self, path: Path, prefix: str) -> None:
        from torch.distributed.checkpoint import HuggingFaceStorageReader

        self.path = path
        self.reader = HuggingFaceStorageReader(str(path))
        with _readable(path):
            metadata: Any = self.reader.read_metadata()
        tensors = {}
        for key, stored in metadata.state_dict_metadata.items():
            if sum(chunk.sizes.numel() for chunk in stored.chunks) != stored.size.numel():
                raise CheckpointError(f"{path} does not hold all of {key}: a part is missing")
            if key.startswith(prefix):
                name = key.removeprefix(prefix)
                tensors[name] = Stored(path, key, stored.size, stored.properties.dtype)
        super().__init__(tensors, {}, path)
        # it would read the header of every file again, tensor after tensor
        self.reader.read_metadata = lambda: metadata  # type: ignore[method-assign]

    def tensor(self, stored: Stored) -> Tensor:
        """One tensor, whole."""
        tensor = torch.empty(stored.shape, dtype=stored.dtype)
        self._read({stored.key: tensor})
        return tensor

    def copy_to(self, tensors: Mapping[str, Tensor], split: object = None) -> None:
        """Fill ``tensors``; one that is split gets this process's part."""
        self._read({self.tensors[name].key: tensor for name, tensor in tensors.items()})

    def _read(self, tensors: Mapping[str, Tensor]) -> None:
        import torch.distributed.checkpoint as dcp

        with warnings.catch_warnings(), _readable(self.path):
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            dcp.load(dict(tensors), storage_reader=self.reader, no_dist=True)
        parts = ((key, getattr(t, "_local_tensor", t)) for key, t in tensors.items())
        refuse_non_finite(parts, str(self.path))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Any error while ``path`` is read becomes a CheckpointError."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except (Exception, CheckpointException) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(f"{path} cannot be read: {why}") from error
