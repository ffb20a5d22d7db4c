"""Core: it decides who gets which message, and knows nothing of pages and API servers."""

import time
import uuid

from amphora import AmqpRpcClient, AmqpRpcServer, Session, Unroutable

WEEK = 7 * 24 * 3600.0

session = Session()
server = AmqpRpcServer("core", session=session)
users = AmqpRpcClient("messages", session=session)


# Whatever is called for a user goes to the queue of that user.
@users.tune_function("show_message")
def to_the_user(args, kwargs):
    return args[0]


@server.add_function
def sign_in(username):
    # From here on messages wait for the user, for a week after the last visit.
    users.create_new_request_queue(username, x_expires=WEEK)
    send("Core", username, f"Hello, {username}! What comes while you are away waits for you.")


@server.add_function
def send(sender, username, text, message_id=None):
    message = {
        "id": message_id or uuid.uuid4().hex,
        "from": sender,
        "text": text,
        "time": time.time(),
    }
    try:
        users.cast(wait_publish=True).show_message(username, message)
    except Unroutable:
        return False  # nobody of that name has ever signed in
    return True


if __name__ == "__main__":
    server.run()
    session.close()
