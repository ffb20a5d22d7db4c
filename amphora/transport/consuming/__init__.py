"""Queues that are read, also after they or their node were away."""
