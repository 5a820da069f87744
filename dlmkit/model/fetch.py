"""Models of dlmkit from the hub. What comes is verified, and no code of it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dlmkit.model.folder import check_folder, refuse_code
from dlmkit.released.fetch import reachable

READ = ("*.safetensors", "*.json", "*.yaml", "*.md", "*.png", "*.txt")
"""The files that are fetched: nothing in these formats runs when it is read."""


def fetched(
    repo: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """The model ``repo`` in the hub's cache, fetched if it can be, verified.

    Raises DataError if the hub cannot be reached or has no such repository, and CheckpointError if
    what is there is damaged, is no model of dlmkit, or holds pickles or code.
    """
    from huggingface_hub import constants, snapshot_download

    if local_files_only or constants.is_offline_mode():
        with reachable(repo, "found"):
            folder = snapshot_download(
                repo, revision=revision, cache_dir=cache_dir, local_files_only=True
            )
    else:
        folder = download(repo, revision, token, cache_dir=cache_dir)[0]
    check_folder(Path(folder), repo)
    return Path(folder)


def download(
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
