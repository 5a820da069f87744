"""Models of the hub by their names: fetched once, into the hub's own cache."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from dlmkit import folders
from dlmkit.errors import CheckpointError, DataError, UsageError
from dlmkit.folders import RECIPE
from dlmkit.released.stored import PICKLES, WEIGHTS

LOG_IN = "log in: hf auth login, or HF_TOKEN (to send, a token that may write)"

_NAME = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?", re.ASCII)
_READ = ("*.safetensors", "*.json", "*.yaml", "*.txt", "*.jinja", "*.md", "*.png")
"""The files that are fetched: nothing in these formats runs when it is read."""


def hub_name(reference: str) -> tuple[str, str | None] | None:
    """The repository and revision that ``owner/name[@revision]`` means; None for any other word,
    and where a folder ``owner`` is here, so that it is a path."""
    match = _NAME.fullmatch(reference)
    if match is None or Path(reference).parent.is_dir():
        return None
    return match[1], match[2]


def fetched(repo: str, revision: str | None = None, pickled: bool = False) -> Path:
    """Where the files of ``repo`` lie in the hub's cache; what is not there yet is fetched.

    Code is never fetched, and pickles only if they are asked for. Raises DataError if the hub
    cannot be reached or has no such repository, and CheckpointError if it has pickles alone.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    patterns = [*_READ, *(f"*{suffix}" for suffix in PICKLES)] if pickled else list(_READ)
    with reachable(repo, "fetched"):
        if constants.is_offline_mode():
            folder = snapshot_download(repo, revision=revision, local_files_only=True)
            return Path(folder)
        info = HfApi(library_name="dlmkit").model_info(repo, revision=revision)
        names = [file.rfilename for file in info.siblings or ()]
        if not pickled:
            refuse_pickles(repo, names)
        # by the branch's name and not by info.sha: so the cache knows it without a connection
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))


def refuse_pickles(repo: str, names: Sequence[str]) -> None:
    """Raise CheckpointError if ``names`` hold pickles, and weights in nothing else."""
    pickles = sorted(name for name in names if PurePosixPath(name).suffix in PICKLES)
    if pickles and not {WEIGHTS, f"{WEIGHTS}.index.json", RECIPE} & set(names):
        raise CheckpointError(
            f"{repo} holds {pickles[0]}, a pickle, which can run code: 'dlmkit import --pickled "
            f"{repo} --out DIR' reads its tensors alone, by torch's weights-only loader, and "
            "writes safetensors"
        )


@contextmanager
def reachable(repo: str, what: str) -> Iterator[None]:
    """Turn what goes wrong between here and the hub into a DataError that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise UsageError(
            f"{repo!r} is no name of a repository: expected user/name, of at most 96 letters, "
            "digits, '-', '_' and '.'"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise DataError(
            f"{repo} cannot be {what}: the hub says {_words(error)}\nif it is there and private, "
            f"{LOG_IN}"
        ) from error
    except errors.HfHubHTTPError as error:
        refused = error.response.status_code in (401, 403)
        advice = f"\n{LOG_IN}" if refused else ""
        raise DataError(f"{repo} cannot be {what}: the hub says {_words(error)}{advice}") from error
    except Exception as error:  # the transport's own errors, of whichever library
        if not _of_transport(error):
            raise
        raise DataError(
            f"{repo} cannot be {what}: the hub cannot be reached ({_words(error)})\ncheck the "
            "connection, HF_ENDPOINT and HF_HUB_OFFLINE; without one, carry the model's "
            f"folder here and name it, or use what lies in {folders.hub()} (HF_HOME)"
        ) from error


def _of_transport(error: BaseException) -> bool:
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    module = type(error).__module__.partition(".")[0]
    kinds = (ConnectionError, TimeoutError, OfflineModeIsEnabled, LocalEntryNotFoundError)
    return isinstance(error, kinds) or module.startswith(("httpx", "httpcore", "requests"))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
