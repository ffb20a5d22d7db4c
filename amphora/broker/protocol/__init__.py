"""One client's AMQP 0-9-1, without I/O: bytes come in, the model acts, bytes go out."""
