from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from amphora import AmqpRpcClient
from amphora.observe.tracing import trace

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))

client = AmqpRpcClient("weather")
trace(client, tracer_provider=provider)
client.call.temperature("Oslo")
for span in exporter.get_finished_spans():
    print(span.kind.name, span.name)  # CLIENT weather/temperature
