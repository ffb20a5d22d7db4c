"""The methods of a channel, and the broker's answers.

Each function here takes a channel of the model and one kind of method, and returns the answer, or
None if the method has none.  basic.publish and basic.get carry messages and are not here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amphora.broker.model.channel import Channel
from amphora.broker.model.errors import Refusal
from amphora.wire.codec import Ack, Method, Nack, methods, unchecked
from amphora.wire.codes import ReplyCode

Answer = Method | None


def _exchange_declare(channel: Channel, method: methods.Exchange.Declare) -> Answer:
    channel.topology.exchanges.declare(
        method.exchange,
        method.exchange_type,
        passive=method.passive,
        durable=method.durable,
        auto_delete=method.auto_delete,
        internal=method.internal,
        arguments=method.arguments,
    )
    return methods.Exchange.DeclareOk()


def _exchange_delete(channel: Channel, method: methods.Exchange.Delete) -> Answer:
    channel.topology.exchanges.delete(method.exchange, if_unused=method.if_unused)
    return methods.Exchange.DeleteOk()


def _exchange_bind(channel: Channel, method: methods.Exchange.Bind) -> Answer:
    channel.topology.bind_exchange(
        method.destination, method.source, method.routing_key, method.arguments
    )
    return methods.Exchange.BindOk()


def _exchange_unbind(channel: Channel, method: methods.Exchange.Unbind) -> Answer:
    channel.topology.unbind_exchange(
        method.destination, method.source, method.routing_key, method.arguments
    )
    return methods.Exchange.UnbindOk()


def _queue_declare(channel: Channel, method: methods.Queue.Declare) -> Answer:
    state = channel.queue_declare(
        method.queue,
        passive=method.passive,
        durable=method.durable,
        exclusive=method.exclusive,
        auto_delete=method.auto_delete,
        arguments=method.arguments,
    )
    return unchecked(
        methods.Queue.DeclareOk,
        queue=state.name,
        message_count=state.message_count,
        consumer_count=state.consumer_count,
    )


def _queue_bind(channel: Channel, method: methods.Queue.Bind) -> Answer:
    channel.queue_bind(method.queue, method.exchange, method.routing_key, method.arguments)
    return methods.Queue.BindOk()


def _queue_unbind(channel: Channel, method: methods.Queue.Unbind) -> Answer:
    channel.queue_unbind(method.queue, method.exchange, method.routing_key, method.arguments)
    return methods.Queue.UnbindOk()


def _queue_purge(channel: Channel, method: methods.Queue.Purge) -> Answer:
    return methods.Queue.PurgeOk(channel.queue_purge(method.queue))


def _queue_delete(channel: Channel, method: methods.Queue.Delete) -> Answer:
    count = channel.queue_delete(method.queue, if_unused=method.if_unused, if_empty=method.if_empty)
    return methods.Queue.DeleteOk(count)


def _basic_qos(channel: Channel, method: methods.Basic.Qos) -> Answer:
    channel.basic_qos(
        method.prefetch_count, whole_channel=method.global_, prefetch_size=method.prefetch_size
    )
    return methods.Basic.QosOk()


def _basic_consume(channel: Channel, method: methods.Basic.Consume) -> Answer:
    tag = channel.basic_consume(
        method.queue,
        method.consumer_tag,
        no_ack=method.no_ack,
        exclusive=method.exclusive,
        arguments=method.arguments,
    )
    return methods.Basic.ConsumeOk(tag)


def _basic_cancel(channel: Channel, method: methods.Basic.Cancel) -> Answer:
    channel.basic_cancel(method.consumer_tag or "")
    return methods.Basic.CancelOk(method.consumer_tag)


def _basic_ack(channel: Channel, method: Ack) -> Answer:
    channel.basic_ack(method.delivery_tag, multiple=method.multiple)
    return None


def _basic_nack(channel: Channel, method: Nack) -> Answer:
    channel.basic_nack(method.delivery_tag, multiple=method.multiple, requeue=method.requeue)
    return None


def _basic_reject(channel: Channel, method: methods.Basic.Reject) -> Answer:
    channel.basic_nack(method.delivery_tag or 0, requeue=method.requeue)
    return None


def _basic_recover(channel: Channel, method: methods.Basic.Recover) -> Answer:
    channel.basic_recover(requeue=method.requeue)
    return methods.Basic.RecoverOk()


def _basic_recover_async(channel: Channel, method: methods.Basic.RecoverAsync) -> Answer:
    channel.basic_recover(requeue=method.requeue)
    return None


def _confirm_select(channel: Channel, method: methods.Confirm.Select) -> Answer:
    channel.confirm_select()
    return methods.Confirm.SelectOk()


def _tx_select(channel: Channel, method: methods.Tx.Select) -> Answer:
    channel.tx_select()
    return methods.Tx.SelectOk()


def _tx_commit(channel: Channel, method: methods.Tx.Commit) -> Answer:
    channel.tx_commit()
    return methods.Tx.CommitOk()


def _tx_rollback(channel: Channel, method: methods.Tx.Rollback) -> Answer:
    channel.tx_rollback()
    return methods.Tx.RollbackOk()


def _channel_flow(channel: Channel, method: methods.Channel.Flow) -> Answer:
    if not method.active:
        raise Refusal(ReplyCode.NOT_IMPLEMENTED, "active=false")
    return methods.Channel.FlowOk(active=True)


_FUNCTIONS: dict[type[Any], Callable[[Channel, Any], Answer]] = {
    Ack: _basic_ack,
    Nack: _basic_nack,
    methods.Basic.Cancel: _basic_cancel,
    methods.Basic.Consume: _basic_consume,
    methods.Basic.Qos: _basic_qos,
    methods.Basic.Recover: _basic_recover,
    methods.Basic.RecoverAsync: _basic_recover_async,
    methods.Basic.Reject: _basic_reject,
    methods.Channel.Flow: _channel_flow,
    methods.Confirm.Select: _confirm_select,
    methods.Exchange.Bind: _exchange_bind,
    methods.Exchange.Declare: _exchange_declare,
    methods.Exchange.Delete: _exchange_delete,
    methods.Exchange.Unbind: _exchange_unbind,
    methods.Queue.Bind: _queue_bind,
    methods.Queue.Declare: _queue_declare,
    methods.Queue.Delete: _queue_delete,
    methods.Queue.Purge: _queue_purge,
    methods.Queue.Unbind: _queue_unbind,
    methods.Tx.Commit: _tx_commit,
    methods.Tx.Rollback: _tx_rollback,
    methods.Tx.Select: _tx_select,
}


def answer(channel: Channel, method: Method) -> Answer:
    """Carry out a method; return the answer, None if there is none or none is wanted.

    Raises:
        Refusal: the broker refuses it, or has no such method (503).
    """
    function = _FUNCTIONS.get(type(method))
    if function is None:
        raise Refusal(ReplyCode.COMMAND_INVALID, "unimplemented method")
    reply = function(channel, method)
    return None if getattr(method, "nowait", False) else reply
