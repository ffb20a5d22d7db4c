"""The way of an answer, from the handler to the broker's confirm."""
