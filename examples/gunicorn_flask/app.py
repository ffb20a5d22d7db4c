"""A Flask application that calls an amphora service.

    cd examples/gunicorn_flask
    python service.py &
    gunicorn app:app

`gunicorn.conf.py`, beside this file, is read by itself.
"""

import os

from flask import Flask

from amphora import AmphoraError, AmqpRpcClient, NoResult, RemoteException

app = Flask(__name__)

# One client for the process and all of its requests.  It connects with its first call.  That may
# be before gunicorn forks: a worker has connections of its own in any case.
stock = AmqpRpcClient("stock", timeout=5.0)


@app.get("/stock/<item>")
def in_stock(item):
    return {"item": item, "left": stock.call.in_stock(item), "worker": os.getpid()}


@app.errorhandler(AmphoraError)
def failed(error):
    if isinstance(error, RemoteException) and error.error_type == "KeyError":
        return {"error": "there is no such thing"}, 404
    if isinstance(error, NoResult):
        return {"error": "the stock does not answer"}, 504
    return {"error": "the stock cannot be asked"}, 503
