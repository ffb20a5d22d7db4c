"""The workers that a client calls: which are there, and what they are told."""
