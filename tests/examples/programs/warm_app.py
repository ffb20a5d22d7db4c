"""The application of `examples/gunicorn_flask`, which calls the service while it is imported."""

from app import app, stock

__all__ = ["app"]

stock.call.in_stock("tea")
