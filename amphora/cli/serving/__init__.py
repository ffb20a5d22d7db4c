"""`amphora serve`: a supervisor, and the worker processes that it looks after."""
