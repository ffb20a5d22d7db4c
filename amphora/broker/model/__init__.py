"""A broker without I/O: the exchanges, queues and channels of a virtual host.

It consists of plain objects, a clock that is passed to them, and a list of effects that the caller
hands out.  `virtual_host` says how to use it.
"""
