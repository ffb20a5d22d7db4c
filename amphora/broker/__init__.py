"""An embedded AMQP 0-9-1 broker for development and tests, in memory.

Below `connection` and `server` it is a model without I/O: plain objects, a clock that is given
to them, and a list of effects that the caller hands out.  `model` says how to use it.
"""
