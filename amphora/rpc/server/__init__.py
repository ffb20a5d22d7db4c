"""Serving: from a request to its response."""
