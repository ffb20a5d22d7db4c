"""Functions of services over HTTP: `amphora gateway`, or an application for a web server.

from amphora.gateway import Gateway
"""

from amphora.gateway.application import Gateway
from amphora.gateway.server import Handler

__all__ = ["Gateway", "Handler"]
