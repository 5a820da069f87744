"""Errors a user can cause. Each carries the exit code that the command line documents."""

from __future__ import annotations


class DlmkitError(Exception):
    """Base of every error that is reported as one message, without a traceback."""

    exit_code = 1


class Notice(UserWarning):
    """What a user should know and nothing stops for; the command line shows it as one line."""


class UsageError(DlmkitError):
    """The command's own words are off: a bad option, a folder already in use."""

    exit_code = 2


class RecipeError(DlmkitError):
    """A recipe is missing or invalid, or it names something nobody provides."""

    exit_code = 3


class TooLargeError(RecipeError):
    """What the sizes of a recipe or of a command ask for does not fit into memory."""


class PluginError(DlmkitError):
    """A known name cannot be used because its plugin failed, is blocked or is absent."""

    exit_code = 4


class DataError(DlmkitError):
    """Text could not be found, read or decoded, or a hub could not be reached."""

    exit_code = 5


class NoTextError(DataError):
    """A model came without text, and something asks for it."""


class CheckpointError(DlmkitError):
    """A checkpoint, trace or certificate is truncated, altered or incomplete."""

    exit_code = 6


class NonFiniteError(DlmkitError):
    """What a model computed is not a number: a loss, its gradient, or what it predicts."""

    exit_code = 7


class NonFiniteLossError(NonFiniteError):
    """The loss or its gradient is not a number."""


class GateFailed(DlmkitError):
    """A comparison found what it was asked to fail on."""

    exit_code = 8


class Preempted(DlmkitError):
    """The run was asked to stop (SIGTERM) and has saved its state."""

    exit_code = 75


class PluginDeclarationError(ValueError):
    """A plugin's module is not what a plugin must be."""


def describe(error: BaseException) -> str:
    """An exception as one line: its type, and its message if it has one."""
    try:
        message = " ".join(str(error).split())
    except Exception:  # an exception that cannot say what it is
        message = ""
    if isinstance(error, PluginDeclarationError):
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
