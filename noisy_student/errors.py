"""One exception tree. Each error carries the exit code of the command line and a hint on how to go on."""

from __future__ import annotations

from typing import ClassVar


class NoisyStudentError(Exception):
    """Base of every error a user can cause or meet; ``message`` says what is wrong, ``hint`` the fix."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[type[NoisyStudentError], tuple[str, str]]:
        # Exceptions cross process borders in the cache build; the default pickling would lose the hint.
        return type(self), (self.message, self.hint)


class UsageError(NoisyStudentError):
    """A command that cannot be carried out as asked (an existing run, a run in use, a foreign directory)."""

    exit_code = 2


class ConfigError(UsageError):
    """A key, value or file of the configuration that is not valid."""


class DataError(NoisyStudentError):
    """Images, tables or splits that cannot be used."""

    exit_code = 3


class WeightsError(DataError):
    """Pretrained weights or a checkpoint that cannot be found, read or matched to the model."""


class DivergedError(NoisyStudentError):
    """Training met a loss that is not finite."""

    exit_code = 4


class StorageError(NoisyStudentError):
    """A file could not be written (disk full, no permission)."""


class PeerError(NoisyStudentError):
    """One of the processes that share a training is gone."""


class StoppedError(NoisyStudentError):
    """Training stopped on SIGTERM after writing a checkpoint (exit code of a temporary failure, sysexits.h)."""

    exit_code = 75


class ConfigWarning(UserWarning):
    """Something a user should know of what was asked for, and that does not stop the work."""
