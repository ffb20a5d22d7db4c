from amphora import Session

with Session() as session:
    channel = session.channel()
    channel.queue_delete("rpc_oldshop_request", if_empty=True)
    channel.queue_delete("rpc_oldshop_dead", if_empty=True)
    for kind in ("request", "response", "created", "control"):
        channel.exchange_delete(f"rpc_oldshop_{kind}")
