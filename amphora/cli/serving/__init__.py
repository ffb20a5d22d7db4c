"""`amphora serve`: a supervisor and its worker processes."""
