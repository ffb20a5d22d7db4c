"""What a broker does, without I/O: exchanges, queues and channels of a virtual host.

Plain objects, a clock that is given to them, and a list of effects that the caller hands out.
`virtual_host` says how to use it.
"""
