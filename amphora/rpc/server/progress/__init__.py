"""What a worker has in progress, and its counters."""
