"""Functions as web addresses."""
