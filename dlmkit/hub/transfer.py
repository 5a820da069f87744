"""To the Hugging Face hub and back. What comes back is verified, and none of it can run."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from dlmkit import documents, folders
from dlmkit.errors import CheckpointError
from dlmkit.hub.folder import Export
from dlmkit.released.fetch import reachable
from dlmkit.training.checkpoint import MANIFEST, verify
from dlmkit.training.state import CONFIG, RECIPE

READ = ("*.safetensors", "*.json", "*.yaml", "*.md", "*.png", "*.txt")
"""The files that are fetched: nothing in these formats runs when it is read."""

CODE = (".py", ".pyc", ".so", ".ipynb")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".msgpack")


def push(export: Export, repo: str, *, private: bool = False, revision: str | None = None) -> str:
    """Send ``export`` to ``repo`` (``user/name``), which is made if there is none; its address.

    ``revision`` is a branch, made if there is none. Raises DataError if the hub refuses.
    """
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as scratch, reachable(repo, "sent"):
        folder = Path(scratch) / "model"
        export.write(folder)
        api = HfApi(library_name="dlmkit")
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            revision=revision,
            commit_message=f"{export.name}, exported by dlmkit",
        )
        return str(done.commit_url)


def pull(repo: str, destination: Path, revision: str | None = None) -> str:
    """Fetch the model ``repo`` into the new folder ``destination``; the commit that was fetched.

    Every file is verified against the manifest before the folder appears. Raises DataError if the
    hub cannot be reached or has no such repository, and CheckpointError if what is there is
    damaged, is no model of dlmkit, or holds pickles or code.
    """
    documents.check_new_folder(destination)
    mark = f".pulling-{destination.name}-"
    work = destination.parent / f"{mark}{uuid.uuid4().hex[:8]}"
    try:
        with documents.writing(destination), folders.at_work(destination.parent, mark):
            commit = _download(repo, revision, None, local_dir=work)[1]
            shutil.rmtree(work / ".cache", ignore_errors=True)
            check_folder(work, repo)
            work.rename(destination)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return commit


def fetched(
    repo: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """The model ``repo`` in the hub's cache, fetched if it can be, verified. Raises as `pull`."""
    from huggingface_hub import constants, snapshot_download

    if local_files_only or constants.is_offline_mode():
        with reachable(repo, "found"):
            found = snapshot_download(
                repo, revision=revision, cache_dir=cache_dir, local_files_only=True
            )
    else:
        found = _download(repo, revision, token, cache_dir=cache_dir)[0]
    check_folder(Path(found), repo)
    return Path(found)


def _download(
    repo: str, revision: str | None, token: str | bool | None, **places: Any
) -> tuple[str, str]:
    """Where the files of ``repo`` lie now, and their commit. Its list is looked at first."""
    from huggingface_hub import HfApi, snapshot_download

    with reachable(repo, "fetched"):
        info = HfApi(library_name="dlmkit").model_info(repo, revision=revision, token=token)
        refuse_code(repo, [file.rfilename for file in info.siblings or ()])
        folder = snapshot_download(
            repo, revision=info.sha, token=token, allow_patterns=list(READ), **places
        )
    return str(folder), str(info.sha)


def refuse_code(origin: str, files: Iterable[str]) -> None:
    """Raise CheckpointError if ``files`` hold pickles or code, or are no model of dlmkit."""
    names = sorted(files)
    for suffixes, what in ((CODE, "code"), (PICKLES, "a pickle, which can run code")):
        found = [name for name in names if PurePosixPath(name).suffix.lower() in suffixes]
        if found:
            raise CheckpointError(
                f"{origin} holds {found[0]}: {what}. dlmkit reads tensors (safetensors), JSON and "
                "YAML alone; ask its author for a folder written by 'dlmkit export'"
            )
    missing = [name for name in (MANIFEST, RECIPE, CONFIG) if name not in names]
    if missing:
        raise CheckpointError(
            f"{origin} is no model of dlmkit: it has no {missing[0]}; such a folder is written by "
            "'dlmkit export'"
        )


def check_folder(folder: Path, origin: str) -> None:
    """Raise CheckpointError unless ``folder`` is an exported model, byte for byte."""
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    refuse_code(origin, names)
    try:
        verify(folder)
        config = documents.shaped(documents.read(folder / CONFIG), dict[str, Any])
    except (CheckpointError, OSError, ValueError) as error:
        words = str(error).replace(f"{folder}/", "").replace(f"{folder} holds", "it holds")
        raise CheckpointError(f"{origin}: {words}; fetch it again, or ask its author") from error
    if "auto_map" in config:
        raise CheckpointError(f"{origin}: {CONFIG} asks for remote code (auto_map); it is refused")
