"""``python -m pushforward`` is the command line."""

from .cli import main

main()
