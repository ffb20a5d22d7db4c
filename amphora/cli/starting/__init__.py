"""`amphora new`: a project that runs, to begin with."""
