"""The command line: it parses, calls and prints."""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from ..errors import PushforwardError
from . import compare, data, editing, evaluate, fit, latents, lesson, sample, score  # noqa: F401
from .options import app, print_err

__all__ = ["app", "main"]

NO_MEMORY = "not enough memory; use fewer rows or a smaller model"


def _report_error(code: int, message: str) -> int:
    """One line on stderr, at most 300 characters."""
    print_err(f"pushforward: error: {' '.join(message.split())}"[:300])
    return code


@contextlib.contextmanager
def _exit_codes(debug: bool) -> Iterator[list[int]]:
    """Turn errors into one line and an exit code."""
    code = [0]
    try:
        yield code
    except KeyboardInterrupt:
        code[0] = _report_error(130, "interrupted")
    except MemoryError:
        code[0] = _report_error(69, NO_MEMORY)
    except BrokenPipeError:
        code[0] = 141
        sys.stderr.close()
    except Exception as error:
        if debug:
            raise
        code[0] = _report_error(*_describe_error(error))


def _describe_error(error: Exception) -> tuple[int, str]:
    """The exit code of an error, and what is said of it."""
    if isinstance(error, PushforwardError):
        return error.code, str(error)
    if isinstance(error, OSError):
        return 74, f"{error.filename or 'a file'}: {error.strerror or error}"
    if "allocate memory" in str(error) or "out of memory" in str(error):  # of a device
        return 69, NO_MEMORY
    where = f"{type(error).__name__}: {error}"
    return 70, f"this is a bug, please report it ({where}); --debug shows more"


def _show_warning(message: Warning | str, *_: Any) -> None:
    """A warning as one line, once."""
    line = f"pushforward: note: {' '.join(str(message).split())}"[:300]
    if line not in noted:
        noted.add(line)
        print_err(line)


noted: set[str] = set()


def main(arguments: list[str] | None = None) -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not know every character
            stream.reconfigure(errors="replace")
    warnings.showwarning = _show_warning  # type: ignore[assignment]  # any callable will do
    words = sys.argv[1:] if arguments is None else arguments
    with _exit_codes("--debug" in words) as code:
        try:
            returned = app(words, standalone_mode=False, prog_name="pushforward")
            code[0] = returned if isinstance(returned, int) else 0
        except Exception as error:
            if not hasattr(error, "format_message"):  # not one of the parser's own
                raise
            message = error.format_message()
            code[0] = _report_error(2, message) if message else 2  # the help was shown instead
    sys.exit(code[0])
