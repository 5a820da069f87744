"""To the Hugging Face hub and back. What comes back is verified, and none of it can run."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from pathlib import Path

from dlmkit import documents, folders
from dlmkit.model.fetch import download
from dlmkit.model.folder import Export, check_folder
from dlmkit.released.fetch import reachable


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
    from huggingface_hub.utils import validate_repo_id

    with reachable(repo, "fetched"):
        validate_repo_id(repo)
    documents.check_new_folder(destination)
    mark = f".pulling-{destination.name}-"
    work = destination.parent / f"{mark}{uuid.uuid4().hex[:8]}"
    try:
        with documents.writing(destination), folders.at_work(destination.parent, mark):
            commit = download(repo, revision, None, local_dir=work)[1]
            shutil.rmtree(work / ".cache", ignore_errors=True)
            check_folder(work, repo)
            work.rename(destination)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return commit
