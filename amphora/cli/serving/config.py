"""Settings of `amphora serve` from a file, and the source of each setting.

click looks for a setting on the command line, in the environment and in its `default_map`, in this
order.  The file is that map.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from typing import Any

import click
from click.core import ParameterSource

from amphora.cli.settings import Settings
from amphora.errors import repr_of
from amphora.net.address import host_and_port
from amphora.transport.connections.endpoint import endpoint
from amphora.transport.options import did_you_mean

# The table of the file; other commands may get tables of their own.
TABLE = "serve"
# Options that concern the settings and are not settings themselves.
ABOUT = ("config", "show_config", "help")


class Configured(click.Command):
    """A command with settings, which says of a wrong one where it comes from."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the settings."""
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            if error.param is not None:
                error.param_hint = _place(ctx, error.param) or error.param_hint
            raise


def _place(context: click.Context, parameter: click.Parameter) -> str | None:
    """Return where a setting comes from; None if it was typed."""
    source = context.get_parameter_source(parameter.name or "")
    told = _told(context, parameter, source)
    if source is ParameterSource.DEFAULT_MAP:
        name = (parameter.name or "").replace("_", "-")
        return f"{name} in {told}"
    return told if source is ParameterSource.ENVIRONMENT else None


def _read(context: click.Context, parameter: click.Parameter, path: str | None) -> str | None:
    if path is not None:
        try:
            with open(path, "rb") as file:
                content = tomllib.load(file)
        except OSError as error:
            raise click.UsageError(f"{path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise click.UsageError(f"{path} cannot be read: {error}") from error
        context.default_map = dict(_settings(context.command, content, path))
    return path


config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False),
    is_eager=True,
    callback=_read,
    metavar="FILE",
    help="Read settings from the table [serve] of a TOML file.",
)
show_config_option = click.option(
    "--show-config",
    is_flag=True,
    help="Print each setting and where it comes from, and end.",
)


def _settings(
    command: click.Command, content: dict[str, Any], path: str
) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a file by the names of their parameters.

    Raises:
        UsageError: it has an unknown setting, or a value of a wrong type.
    """
    parameters = {
        (parameter.name or "").replace("_", "-"): parameter
        for parameter in command.params
        if parameter.name not in ABOUT
    }
    strangers = content.keys() - {TABLE}
    table = content.get(TABLE, {})
    if strangers or not isinstance(table, dict):
        raise click.UsageError(f"{path} must have its settings in a table [{TABLE}]")
    for key, value in table.items():
        name = key.replace("_", "-")
        parameter = parameters.get(name)
        if parameter is None:
            hint = did_you_mean([name], parameters)
            raise click.UsageError(f"{path} has {repr_of(key)}, which is not a setting{hint}")
        is_list = parameter.nargs == -1 or parameter.multiple
        if is_list and isinstance(value, str):
            value = [value]
        if not _fits(parameter, value, is_list):
            raise click.UsageError(f"{path}: {key} cannot be {repr_of(value)}")
        yield name.replace("-", "_"), value


def misspelt_variables(context: click.Context, environment: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong with variables that nobody reads and that may be meant as settings.

    One without a setting of nearly its name may be that of something else.

    Args:
        environment: the names of all variables.
    """
    prefix = f"{context.auto_envvar_prefix}_"
    settings = {parameter.name or "": parameter for parameter in context.command.params}
    for variable in sorted(environment):
        name = variable.removeprefix(prefix).lower()
        if name == variable.lower():
            continue
        parameter = settings.get(name)
        if parameter is None:
            near = did_you_mean([name], settings)
            if near:
                yield f"{variable} in the environment is not a setting{near}"
        elif parameter.envvar not in (None, variable):
            yield f"{variable} in the environment is not read: {parameter.envvar} is"


def _fits(parameter: click.Parameter, value: object, is_list: bool) -> bool:
    if is_list:
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return isinstance(value, bool)
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def sources(context: click.Context, settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Yield the name of each setting, its value as text, and where it comes from.

    Args:
        settings: the settings that may stand before the command's name.

    Raises:
        ValueError: the URL of the broker is not valid.
    """
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in ABOUT:
            continue
        source = context.get_parameter_source(name)
        value = context.params.get(name)
        if not parameter.expose_value:
            value = getattr(settings, name)
            if value and source is ParameterSource.DEFAULT:
                source = ParameterSource.COMMANDLINE
        yield name.replace("_", "-"), _shown(name, value), _told(context, parameter, source)


def _told(
    context: click.Context, parameter: click.Parameter, source: ParameterSource | None
) -> str:
    if source is ParameterSource.COMMANDLINE:
        return "command line"
    if source is ParameterSource.DEFAULT_MAP:
        return str(context.params.get("config"))
    if source is ParameterSource.ENVIRONMENT:
        return str(parameter.envvar or f"{context.auto_envvar_prefix}_{parameter.name}".upper())
    return "default"


def _shown(name: str, value: Any) -> str:
    if value is None or value == ():
        return "-"
    if name == "url":
        # The password is left out.
        return str(endpoint(value))
    if isinstance(value, bool):
        return str(value).lower()
    if name == "max_memory":
        return f"{value / 1024**2:g}M"
    if name == "http":
        return host_and_port(*value)
    return " ".join(value) if isinstance(value, tuple) else str(value)
