"""The one kind of error these commands report, and how they report it."""

import signal
import sys
from collections.abc import Callable


class DataError(Exception):
    """Bad input or a full disk: one line naming the file, record or option, the value, and what would be right."""


def run_command(main: Callable[[], int]) -> None:
    """Ends the process with `main`'s exit status; turns errors and interruption into one line on stderr."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # kill cleans up as Ctrl-C does
    try:
        status = main()
    except DataError as error:
        status = _fail(str(error), 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        status = _fail(f"{where}{error.strerror or error}", 1)
    except KeyboardInterrupt:
        status = _fail("interrupted, no output was made", 130)
    sys.exit(status)


def _fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status
