"""`amphora demo`: a client and two servers that show how amphora works."""
