"""Where the spans of a process go: to a collector, or on the screen."""

import os

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor


def set_up(service):
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    if "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ:
        # pip install opentelemetry-exporter-otlp-proto-http
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    else:
        exporter = ConsoleSpanExporter(formatter=lambda span: f"{line_of(span)}\n")
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def line_of(span):
    milliseconds = (span.end_time - span.start_time) / 1e6
    status = span.attributes["rpc.status_code"]
    return (
        f"{span.context.trace_id:032x} {span.kind.name} {span.name} {status} {milliseconds:.1f} ms"
    )
