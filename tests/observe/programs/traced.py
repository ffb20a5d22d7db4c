"""A traced server that prints its spans, and may call the next one.

`traced.py URL NAMESPACE NAME [NEXT]`: what follows the namespace, and the name of the next one.
"""

import sys

from opentelemetry import trace as api
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

import amphora
from amphora.observe.tracing import trace

provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(
    SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda span: f"{span.to_json(None)}\n"))
)
api.set_tracer_provider(provider)

url, namespace, name = sys.argv[1:4]
server = amphora.AmqpRpcServer(f"{namespace}.{name}", url=url)
following = [amphora.AmqpRpcClient(f"{namespace}.{each}", url=url) for each in sys.argv[4:]]
trace(server)
for client in following:
    trace(client)


@server.add_function
def chain() -> list[str]:
    """Return the names of the servers from here on."""
    return [name, *(each for client in following for each in client.call.chain())]


server.on_start(lambda: print("ready"))
server.serve(nowait=False)
