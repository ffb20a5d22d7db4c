"""The options and settings that commands share, and examples in their help."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from amphora.cli.failures import settings_errors
from amphora.cli.lookup import within
from amphora.errors import ConnectionLost
from amphora.observe.logs import set_up
from amphora.rpc.contract.checks import check_timeout
from amphora.transport.links.link import Link
from amphora.transport.options import did_you_mean
from amphora.transport.session import Session
from amphora.transport.words import utf8_word

F = TypeVar("F", bound=Callable[..., Any])


class Group(click.Group):
    """A group of commands that names the one nearest to a misspelt one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command.

        Raises:
            UsageError: there is none of that name.
        """
        name = args[0]
        if self.get_command(ctx, name) is None:
            near = did_you_mean([name], self.list_commands(ctx))
            if near:
                ctx.fail(f"No such command {name!r}{near}")
        return super().resolve_command(ctx, args)


@dataclass
class Settings:
    """The options that may stand before or after the name of a command.

    `url` is None for AMQP_URL or, without it, the broker on this machine.
    """

    url: str | None = None
    debug: bool = False
    json: bool = False

    @property
    def may_ask(self) -> bool:
        """Whether the command is for a person, at a terminal, who can answer a question."""
        return sys.stdin.isatty() and not self.json

    @contextmanager
    def session(self, timeout: float | None = None) -> Iterator[Session]:
        """Connect to the broker and close the session afterwards.  Switches greenlets.

        Args:
            timeout: seconds for connecting, and for what is looked up in the `with` block.

        Raises:
            ConnectionLost: there is no broker.
            AuthenticationError: it refuses the login or the vhost.
        """
        by_default = self.url is None and not os.environ.get("AMQP_URL")
        with settings_errors():
            session = Session(None if self.url is None else utf8_word(self.url))
            timeout = None if timeout is None else check_timeout(timeout)
        with session, within(timeout):
            try:
                connect(session.consuming, timeout)
            except ConnectionLost as error:
                where = (
                    "That is where a broker is looked for by default; --url or AMQP_URL names"
                    " another one."
                    if by_default
                    else "Check the address in --url or AMQP_URL."
                )
                raise ConnectionLost(f"{error}. {where}", executed=False) from error
            yield session


def connect(link: Link, timeout: float | None = None) -> None:
    """Wait for a link's first attempt to connect.  Switches greenlets.

    A program keeps trying, but a command fails at once.

    Raises:
        ConnectionLost, AuthenticationError: the first attempt failed, or took too long.
    """
    link.start()
    link.wait_until(lambda: link.connection is not None or link.error is not None, timeout)
    if link.error is not None:
        raise link.error
    if link.connection is None:
        raise ConnectionLost(f"no connection to {link.endpoint} within {timeout:g} s")


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    settings = context.ensure_object(Settings)
    name = parameter.name or ""
    typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    # An option after the command's name is read last, and wins if it was typed.
    if value and (typed or not getattr(settings, name)):
        setattr(settings, name, value)


def _debug(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    _remember(context, parameter, value)
    if value:
        set_up("debug")


debug_option = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    callback=_debug,
    help="Log what happens, and show tracebacks.",
)


def url_option(**where: Any) -> Callable[[F], F]:
    """Return a decorator that adds --url; `where` says where else the URL may come from."""
    return click.option(
        "--url",
        metavar="URL",
        expose_value=False,
        callback=_remember,
        help="The broker: amqp://user:password@host:port/vhost"
        "  [default: AMQP_URL of the environment, or a broker on this machine]",
        **where,
    )


def url_and_debug(command: F) -> F:
    """Add --url and --debug to a command."""
    return url_option()(debug_option(command))


def json_option(command: F) -> F:
    """Add --json to a command."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_remember,
        help="Print one JSON object per line, errors too.",
    )(command)


def timeout_option(default: float, what: str) -> Callable[[F], F]:
    """Return a decorator that adds --timeout; `what` says what the time is for."""
    return click.option(
        "--timeout",
        type=Number(),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help=what,
    )


def listening_options(default_port: int, clients: str) -> Callable[[F], F]:
    """Return a decorator that adds --port, --host and --host-name to a command that listens.

    Args:
        clients: what comes there, in the plural.
    """
    port = click.option(
        "--port",
        type=Count(0, 65535),
        metavar="PORT",
        default=default_port,
        show_default=True,
        help="The port to listen on; 0 for any.",
    )
    host = click.option(
        "--host", default="127.0.0.1", show_default=True, help="The address to listen on."
    )
    names = click.option(
        "--host-name",
        "names",
        multiple=True,
        metavar="NAME",
        help=f"Another name by which {clients} reach it.",
    )
    return lambda command: port(host(names(command)))


class Number(click.FloatRange):
    """A number in a range.  click's own type takes NaN, which is in every range."""

    # In errors: "'5s' is not a valid number."
    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number.

        Raises:
            BadParameter: it is not one, or not in the range.
        """
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class Count(click.IntRange):
    """A whole number in a range."""

    # As above.
    name = "whole number"


pass_settings = click.make_pass_decorator(Settings, ensure=True)


def examples(*lines: str) -> str:
    """Return the end of a help text: commands to copy."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
