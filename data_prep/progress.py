"""Progress bars on stderr."""

import sys
from collections.abc import Iterable

from tqdm import tqdm

LOG_INTERVAL = 10  # seconds between lines where stderr is no terminal: a log should stay readable


def progress(items: Iterable | None = None, **options) -> tqdm:
    """tqdm, with its options."""
    return tqdm(items, mininterval=0.1 if sys.stderr.isatty() else LOG_INTERVAL, **options)
