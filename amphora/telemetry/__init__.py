"""Traces and metrics, for those who run servers and clients.  Nothing else imports them.

from amphora.telemetry.metrics import Metrics
"""
