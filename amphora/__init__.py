"""Remote calls between gevent programs over an AMQP broker."""

__version__ = "1.0.0.dev0"
