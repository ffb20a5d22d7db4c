"""Requests that wait for their end."""
