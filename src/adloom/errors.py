"""Errors a person reads: what is wrong, where, and what to do next."""

from __future__ import annotations


class AdloomError(Exception):
    """A step cannot go on. ``next_step`` says what a person does about it (exit code 1)."""

    def __init__(self, message: str, next_step: str = "") -> None:
        self.message = message
        self.next_step = next_step
        super().__init__(f"{message} → {next_step}" if next_step else message)


class Busy(AdloomError):
    """Another process is at it. What the same step makes of it later is all there is to do, so a run tries again.

    Its ``next_step`` begins with `Busy.WAIT`: by these words a task knows it in what a command of its own printed.
    """

    WAIT = "wait for it"

    def __init__(self, message: str, rest: str = "") -> None:
        super().__init__(message, f"{self.WAIT} and run the step again{rest}")


class UsageError(AdloomError):
    """The command or its arguments are wrong (exit code 2)."""


class GateFailed(AdloomError):
    """A door stayed shut: the data did not pass, nothing downstream was changed."""
