"""The streams that a worker serves."""
