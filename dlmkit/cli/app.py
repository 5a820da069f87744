"""The program ``dlmkit``: its commands, its global options, and its one error boundary."""

from __future__ import annotations

import errno
import faulthandler
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any, TypeGuard

import typer

from dlmkit.cli.commands import Program
from dlmkit.cli.output import result, say, silence, writing
from dlmkit.errors import DlmkitError, Notice, Preempted, TooLargeError, UsageError
from dlmkit.files import quoted
from dlmkit.shown import visible
from dlmkit.version import __version__

EXIT_CODES = """Exit codes: 0 done, 1 unexpected, 2 usage, 3 recipe missing or invalid or a name
nobody provides, 4 a known name whose plugin failed or is absent, 5 data or hub, 6 checkpoint,
trace or certificate truncated, altered or incomplete, 7 non-finite loss or prediction, 8 a
comparison's gate failed, 75 preempted and saved, 130 interrupted."""

REFUSED = frozenset(
    getattr(errno, name)
    for name in (
        "EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EFBIG", "EIO", "ENOTDIR", "EMFILE",
        "ENFILE", "ESTALE",
    )
    if hasattr(errno, name)
)  # fmt: skip
"""What the system answers where a folder is read-only or a disk full."""

IMPOSSIBLE = frozenset((errno.ENAMETOOLONG, errno.ELOOP))
"""What it answers to a name that no file can have."""

app = typer.Typer(
    name="dlmkit",
    cls=Program,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_CHANGED = ("DLMKIT_PLUGINS", "DLMKIT_PLUGIN_FILES")
"""The environment variables that options set, so that child processes do the same."""


def _no_plugins(value: bool) -> None:
    if value:  # at once: even the help lists the commands of plugins
        os.environ["DLMKIT_PLUGINS"] = ""


def _plugin(values: list[str] | None) -> None:
    if values:
        from dlmkit.registry import single

        for value in values:
            single.name(value)


def _version(value: bool) -> None:
    if value:
        result(f"dlmkit {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    no_plugins: Annotated[
        bool,
        typer.Option(
            "--no-plugins",
            callback=_no_plugins,
            is_eager=True,
            help="Load no third-party plugins that are installed.",
        ),
    ] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            "--plugin",
            metavar="FILE",
            callback=_plugin,
            is_eager=True,
            help="Load the plugin in this Python file as well; may be given several times.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Compose, train, sample and measure diffusion language models from small parts."""
    context.obj["debug"] = debug


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code. Every error ends here as one message."""
    settings: dict[str, Any] = {"debug": False}
    if not faulthandler.is_enabled():
        with suppress(AttributeError, OSError, RuntimeError):  # no standard error to write to
            faulthandler.enable()  # a crash below Python names the line, of a plugin for one
    with _environment():
        try:
            _open_streams()
            words = list(sys.argv[1:] if arguments is None else arguments)
            app(words, prog_name="dlmkit", obj=settings)
        except SystemExit as stop:
            return _stopped(stop)
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            return _closed_pipe()
        except Exception as error:
            return _failed(_known(error), settings["debug"])
    raise AssertionError("typer always stops")


def _open_streams() -> None:
    """Open what was closed (``>&-``) to nowhere, or the next file that is opened would get its
    number, and whatever a library prints. Raises UsageError if stdout was closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        raise UsageError(
            "standard output is closed, so results have nowhere to go: send it somewhere, if only "
            "to /dev/null"
        )


@contextmanager
def _environment() -> Iterator[None]:
    """Undo what options changed in the environment, for callers inside one process.

    Meanwhile a Notice is one line, without the place in the code that other warnings name.
    """
    before, worded = {name: os.environ.get(name) for name in _CHANGED}, warnings.formatwarning

    def formatted(message: Any, category: type[Warning], *place: Any, **more: Any) -> str:
        if issubclass(category, Notice):
            return visible(f"note: {message}\n")
        return visible(worded(message, category, *place, **more))

    warnings.formatwarning = formatted
    try:
        yield
    finally:
        warnings.formatwarning = worded
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _stopped(stop: SystemExit) -> int:
    if isinstance(stop.__context__, BrokenPipeError):
        return _closed_pipe()
    try:
        with writing():
            sys.stdout.flush()
    except BrokenPipeError:
        return _closed_pipe()
    except UsageError as error:
        return _failed(error, debug=False)
    return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def _closed_pipe() -> int:
    """The reader (``| head``) has seen enough: not an error."""
    silence()
    return 0


_FULL = re.compile("not enough memory|can't allocate memory|out of memory", re.IGNORECASE)


def _known(error: Exception) -> Exception:
    """What the system says of names and of memory, wherever it is said, as an error of ours."""
    words = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in IMPOSSIBLE:
        name = quoted(os.fsdecode(error.filename or ""))
        known: DlmkitError = UsageError(f"no file can be called {name}: {error.strerror}")
    elif isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _FULL.search(words)
    ):
        known = TooLargeError(
            f"there is no memory for these sizes ({words[:200]}); take fewer rows at once "
            "(train.micro_batch_size, sample.batch_size), shorter texts or a smaller model"
        )
    else:
        return error
    known.__cause__ = error
    return known


def _failed(error: Exception, debug: bool) -> int:
    if debug:
        say("".join(traceback.format_exception(error)))
    elif isinstance(error, DlmkitError):
        from dlmkit.recipe.problems import InvalidRecipe, UnusableRecipe

        bare = isinstance(error, InvalidRecipe | UnusableRecipe | Preempted)
        say(str(error) if bare else f"error: {error}")
    elif _refused(error):
        what = f"{error.filename}: " if error.filename else ""
        say(f"error: {what}{error.strerror}: the system refused it; free it, or name another place")
    else:
        notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
        words = " ".join(f"{type(error).__name__}: {error}".split())
        say(f"unexpected error: {words}{notes}; for the traceback: dlmkit --debug ...")
    if _refused(error):
        return UsageError.exit_code
    return error.exit_code if isinstance(error, DlmkitError) else 1


def _refused(error: Exception) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and error.errno in REFUSED
