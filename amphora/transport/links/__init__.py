"""Connections that are made again, with all that was set up on them."""
