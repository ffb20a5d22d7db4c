"""The commands for operators of workers, and for their callers."""
