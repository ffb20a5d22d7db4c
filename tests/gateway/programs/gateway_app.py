"""A gateway as an application for a web server."""

import os

from amphora.gateway import Gateway

application = Gateway(os.environ["SERVICE_NAMESPACE"])
