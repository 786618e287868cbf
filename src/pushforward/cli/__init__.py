"""The command line: it parses, calls and prints."""

import io
import re
import sys
import warnings
from typing import Any

from ..errors import PushforwardError
from . import compare, data, fit, lesson, sample, score, transform  # noqa: F401
from .options import app, print_err

__all__ = ["app", "main"]


def _describe_error(error: BaseException) -> tuple[int, str]:
    if hasattr(error, "format_message"):  # of the parser; empty where it has shown the help
        return 2, error.format_message()
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    if isinstance(error, PushforwardError):
        return error.code, str(error)
    if isinstance(error, OSError):
        return 74, f"{error.filename or 'a file'}: {error.strerror or error}"
    if isinstance(error, MemoryError) or re.search("(allocate|out of) memory", str(error)):
        return 69, "not enough memory; use fewer rows or a smaller model"
    where = f"{type(error).__name__}: {error}"
    return 70, f"this is a bug, please report it ({where}); --debug shows more"


def _one_line(kind: str, message: object) -> str:
    return f"pushforward: {kind}: {' '.join(str(message).split())}"[:300]


noted: set[str] = set()


def _show_warning(message: Warning | str, *_: Any) -> None:
    line = _one_line("note", message)
    if line not in noted:
        noted.add(line)
        print_err(line)


def main(arguments: list[str] | None = None) -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not know every character
            stream.reconfigure(errors="replace")
    warnings.showwarning = _show_warning  # type: ignore[assignment]  # any callable will do
    words = sys.argv[1:] if arguments is None else arguments
    try:
        returned = app(words, standalone_mode=False, prog_name="pushforward")
        code = returned if isinstance(returned, int) else 0
    except BrokenPipeError:
        code = 141
        sys.stderr.close()
    except (Exception, KeyboardInterrupt) as error:
        plain = isinstance(error, KeyboardInterrupt | MemoryError)
        if "--debug" in words and not (plain or hasattr(error, "format_message")):
            raise
        code, message = _describe_error(error)
        if message:
            print_err(_one_line("error", message))
    sys.exit(code)
