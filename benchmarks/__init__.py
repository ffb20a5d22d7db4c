"""How fast amphora is, beside others and beside what the broker allows."""
