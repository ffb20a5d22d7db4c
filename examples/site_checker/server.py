"""Says whether sites are up.  Start as many of it as you like."""

from gevent import monkey

# So that urllib waits as gevent does, and other checks run meanwhile.
monkey.patch_all()

from urllib.request import urlopen

from amphora import AmqpRpcServer

server = AmqpRpcServer("sites")


@server.add_function
def check(url):
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url} is not the address of a site")
    try:
        urlopen(url, timeout=10).close()
    except OSError as error:
        return f"{url} is down: {error}"
    return f"{url} is up"


server.run()
