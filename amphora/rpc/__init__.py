"""Requests and responses on top of the transport."""
