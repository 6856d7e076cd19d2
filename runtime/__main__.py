"""The command ``ortsep``, also as ``python -m ortsep``: Ctrl-C ends it without a traceback from its first line on."""

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """``ortsep.cli.main``; until it takes the signals over, which is some imports away, they end the process alone.

    ``ortsep apart`` is a process that ortsep itself has started (``ortsep.base.apart``).
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.argv[1:2] == ["apart"]:
        from ortsep.base import apart

        apart.main(sys.argv[2:])
    from ortsep.cli import main as command

    command()


if __name__ == "__main__":
    main()
