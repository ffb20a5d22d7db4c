"""`amphora new`: a working project to start from."""
