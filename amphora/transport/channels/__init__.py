"""The channels of a connection, and what travels on them."""
