from celery import Celery

app = Celery("shop", broker="amqp://", backend="rpc://")


@app.task
def total(prices, discount=0):
    return sum(prices) * (100 - discount) / 100
