"""The AMQP 0-9-1 of one client, without I/O: bytes come in, the model acts, bytes go out."""
