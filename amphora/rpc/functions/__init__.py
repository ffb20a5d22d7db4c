"""The functions that a server offers, and the checks of their arguments."""
