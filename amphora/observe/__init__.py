"""Traces, metrics, logs and health, for those who run servers and clients.

Imported only where it is used:

from amphora.observe.metrics import Metrics
"""
