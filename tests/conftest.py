"""What holds for all tests."""

import signal

# A shell starts background jobs with Ctrl-C ignored, and so would the programs that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
