"""AMQP 0-9-1 as bytes: no socket, no gevent, no clock, no logging.

The same code serves the client and the embedded broker.
"""
