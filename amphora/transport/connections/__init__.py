"""One connection to a broker, from its URL to its end."""
