"""Calling: from a call to its result."""
