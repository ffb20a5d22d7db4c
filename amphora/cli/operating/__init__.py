"""The commands for those who run workers, and for those who call them."""
