"""Training runs: their logs, pictures and results."""
