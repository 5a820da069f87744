"""What a check can come to, beside passing."""

from __future__ import annotations


class CheckFailed(AssertionError):
    """A check found a breach; the message is a full sentence that says what and how far."""


class NotApplicable(Exception):
    """A check has nothing to look at here, or the component cannot be built on this machine."""
