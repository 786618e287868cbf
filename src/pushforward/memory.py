"""What fits into this machine's memory, asked before it is taken."""

import os

from .errors import UsageError


def physical() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def demand(bytes_: int | float, what: str, remedy: str) -> None:
    """Refuse what is sure not to fit.

    Raises:
        UsageError: If more is asked for than the machine has.
    """
    if bytes_ > physical():
        raise UsageError(
            f"{what} would take {bytes_ / 2**30:,.0f} GiB of memory and this machine has "
            f"{physical() / 2**30:,.0f}; {remedy}"
        )
