"""The interface of arpc 0.5: `from amphora.arpc import mq`.

A thin layer: a service is a server of the namespace of that name, and a request document is the one
argument of the function that its `c` names.  So arpc's callers can call any server, and
`AmqpRpcClient` any arpc service.
"""
