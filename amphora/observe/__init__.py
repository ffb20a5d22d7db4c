"""Traces, metrics, logs and health, for operators of servers and clients.

Import a module only where you use it:

from amphora.observe.metrics import Metrics
"""
