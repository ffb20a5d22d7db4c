"""Serving the request queues of keys: `receive_from_queue`."""
