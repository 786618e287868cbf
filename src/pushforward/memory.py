"""What fits into the memory of this machine, asked before it is taken."""

import os

from .errors import UsageError


def physical_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def require_memory(bytes_: int | float, what: str, remedy: str) -> None:
    """Refuse what is sure not to fit.

    Raises:
        UsageError: If more is asked for than the machine has.
    """
    if bytes_ > physical_memory():
        raise UsageError(
            f"{what} would take {bytes_ / 2**30:,.0f} GiB of memory and this machine has "
            f"{physical_memory() / 2**30:,.0f}; {remedy}"
        )
