"""Errors that a user can act on, each with the exit code the command line gives it.

Every message is one line: what is wrong, where, and what to do about it.
"""


class PushforwardError(Exception):
    """An error with a remedy; ``code`` is the exit code of the command line."""

    code = 70


class UsageError(PushforwardError, ValueError):
    """An argument or option that cannot be honoured (exit 2)."""

    code = 2


class NoLikelihood(UsageError):
    """A density was asked of a model that has none (exit 2)."""


class DataError(PushforwardError, ValueError):
    """The user's data cannot be used as they are (exit 65)."""

    code = 65


class MissingFile(PushforwardError, FileNotFoundError):
    """A file or folder does not exist (exit 66)."""

    code = 66


class Unavailable(PushforwardError):
    """An optional package or a device is missing (exit 69)."""

    code = 69


class FolderInUse(PushforwardError):
    """A folder exists already, or another process holds it (exit 73)."""

    code = 73


class DiskError(PushforwardError, OSError):
    """Writing failed: the disk is full, or the folder is read-only (exit 74)."""

    code = 74


class NumericalError(PushforwardError, ArithmeticError):
    """A loss, a weight or an integral is not finite (exit 75)."""

    code = 75


class OdeError(NumericalError):
    """A solver met a value that is not finite or could not reach its tolerance (exit 75)."""


class Unsafe(PushforwardError):
    """A file is refused because reading it could run code or exhaust the machine (exit 77)."""

    code = 77
