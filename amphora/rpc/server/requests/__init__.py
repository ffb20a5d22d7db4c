"""The way of a request, from its delivery to its handler."""
