"""gunicorn's settings; its command line can change them."""

bind = "127.0.0.1:8000"
workers = 2
worker_class = "gevent"


def worker_exit(server, worker):
    # What the broker keeps for this worker goes now, and not after some minutes.
    from app import stock

    stock.close()
