"""The streams that a client reads."""
