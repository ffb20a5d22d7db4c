"""An embedded AMQP 0-9-1 broker for development and tests, in memory.

`model` and `protocol` do no I/O; `server` and `clients` add sockets, greenlets and a clock.
"""
