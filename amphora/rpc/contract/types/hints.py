"""Converters for arguments and results, made from type hints.

msgspec checks and converts most hints.  Whether it can is found out once, when a function is added:
some hints it cannot build at all, others it takes for classes that only their own instances fit.
Such hints are rewritten into hints that it can build (`Iterable[int]` into `list[int]`).  Parts of
them become a special class that converts by itself (a union, a pydantic model).  What remains is
refused, because no value that arrives could ever fit.
"""

from __future__ import annotations

import collections
import os
import pathlib
import re
import types
import typing
from collections.abc import Callable, Collection, Container, Iterable, Reversible
from contextlib import suppress
from dataclasses import InitVar
from datetime import UTC, datetime
from enum import EnumMeta
from functools import lru_cache, partial
from typing import Annotated, Any, ForwardRef, Union, get_args, get_origin

import msgspec
from msgspec.inspect import CustomType, DataclassType, DictType, Field, Type, UnionType, type_info

from amphora.errors import repr_of
from amphora.rpc.contract.models import is_model, is_pydantics, model_converter
from amphora.rpc.contract.serializers import AS_TEXT

Converter = Callable[[Any], Any]


class Unmeetable(TypeError):
    """No value that arrives can fit a hint."""


class _Unconvertible(Unmeetable):
    """What the hint says can be sent, but not be converted."""


class Unevaluated(Exception):
    """A hint cannot be evaluated, or not be checked."""


def converter_of(hint: Any) -> Converter | None:
    """Return the converter for a hint, None if every value fits.

    The converter raises an exception of any class for a value that does not fit.

    Raises:
        Unmeetable: no value that arrives can fit the hint.
        Unevaluated: the hint, or a part of it, cannot be evaluated.
    """
    if not _is_a_type(hint):
        raise Unevaluated(f"{repr_of(hint)} is not a type")
    try:
        plain = buildable(hint)
    except Unmeetable:
        raise
    except (NameError, TypeError) as error:
        # A TypeError is Python's own, as for `tuple[int, *Ts]` with something in the place of Ts.
        raise Unevaluated(str(error)) from error
    except RecursionError:
        raise Unevaluated(f"{name_of(hint)} contains itself") from None
    if plain is Any:
        return None
    return _converter(plain)


def _converter(plain: Any) -> Converter:
    # Keys of dicts arrive as text in JSON; everything else is checked strictly.
    return partial(msgspec.convert, type=plain, str_keys=True, dec_hook=_decode)


def _is_a_type(hint: Any) -> bool:
    """Return whether an annotation is a type, not a remark of the program's own."""
    return (
        # As within `Generator[int, None, None]`: Python makes NoneType of it elsewhere.
        hint is None
        or isinstance(hint, type)
        or get_origin(hint) is not None
        or type(hint).__module__.partition(".")[0] in _HOMES_OF_TYPES
    )


# -- hints that msgspec can build -----------------------------------------------------------------


# How Python 3.14 shows a name that is not defined.
_FORWARD_REF = re.compile(r"ForwardRef\('(.*?)'(?:, [^()]*)?\)")


class Special(type):
    """The type of the classes that stand in for hints that msgspec cannot build.

    Attributes:
        hint: what the class stands for.
    """

    convert: Converter
    hint: Any

    def __instancecheck__(cls, value: object) -> bool:
        # msgspec checks the converted value with this.
        return True


def _special(hint: Any, convert: Converter) -> Special:
    return Special(name_of(hint), (), {"convert": staticmethod(convert), "hint": hint})


def name_of(hint: Any) -> str:
    """Return a hint as source text."""
    if isinstance(hint, type) and not get_args(hint):
        return hint.__name__
    return _FORWARD_REF.sub(r"\1", str(hint)).replace("typing.", "")


def buildable(hint: Any) -> Any:
    """Return a hint that msgspec can build, and that some value can fit.

    Raises:
        Unmeetable: no value that arrives can fit it.
        Exception: the hint, or a part of it, cannot be evaluated.
    """
    plain = _rewrite(hint)
    if plain is not Any:
        _check(plain)
    return plain


def _rewrite(hint: Any) -> Any:
    if isinstance(hint, str | ForwardRef):
        raise Unevaluated(f"{name_of(hint)} is not defined")
    if hint is Any or hint is object or isinstance(hint, _SAYS_NOTHING):
        return Any
    if hint is typing.LiteralString:
        return str
    if isinstance(hint, InitVar):
        return _rewrite(hint.type)
    if isinstance(hint, typing.NewType):
        return _rewrite(hint.__supertype__)
    if isinstance(hint, typing.TypeVar):
        if hint.__constraints__:
            return _rewrite(Union[hint.__constraints__])  # noqa: UP007 (known only here)
        return Any if hint.__bound__ is None else _rewrite(hint.__bound__)
    if hasattr(hint, "__value__") and not isinstance(hint, type):
        # An alias of a type (`type X = ...`), which may contain itself.
        if _is_known(hint):
            return hint
        return _alias(hint) if _mentions(hint.__value__, hint) else _rewrite(hint.__value__)
    if is_pydantics(hint):
        return _special(hint, _model(hint))
    if isinstance(hint, EnumMeta) and len(hint) and not _is_known(hint):
        # An enum whose values are neither all texts nor all whole numbers.
        return _special(hint, _members(hint))
    return _rewrite_parts(hint, get_origin(hint), get_args(hint))


def _mentions(hint: Any, alias: Any) -> bool:
    """Return whether an alias is in a hint, also within other aliases."""
    seen: list[Any] = []
    left = [hint]
    while left:
        part = left.pop()
        if part is alias:
            return True
        if not any(part is other for other in seen):
            seen.append(part)
            left += [*get_args(part), *([part.__value__] if hasattr(part, "__value__") else [])]
    return False


# The classes that stand in for aliases that contain themselves.
_aliases: dict[Any, Special] = {}


def _alias(alias: Any) -> Special:
    """Return the class that stands in for an alias, there and in its own hint."""
    special = _aliases.get(alias)
    if special is None:
        special = _aliases[alias] = _special(alias, _not_yet)
        try:
            special.convert = staticmethod(_converter(buildable(alias.__value__)))
        except BaseException:
            del _aliases[alias]
            raise
    return special


def _not_yet(value: Any) -> Any:
    raise RuntimeError("its hint is not read yet")


def _rewrite_parts(hint: Any, origin: Any, args: tuple[Any, ...]) -> Any:
    if not args or origin in _NO_HINTS_INSIDE:
        return hint
    if origin is Annotated:
        inner = _rewrite(args[0])
        limits = [limit for meta in hint.__metadata__ for limit in _limits(meta)]
        return Annotated[(inner, *limits)] if limits else inner
    if origin in (Union, types.UnionType):
        return _rewrite_union(hint, args)
    rewritten = tuple(arg if arg is Ellipsis else _rewrite(arg) for arg in args)
    if origin in _LISTS:
        return list[rewritten]  # type: ignore[valid-type]
    if origin in _DICTS and _is_custom(rewritten[0]):
        # msgspec leaves such keys unconverted.
        _check(rewritten[0])
        keys, values = _converter(rewritten[0]), _converter(dict[Any, rewritten[1]])  # type: ignore[valid-type]
        return _special(
            hint, lambda value: {keys(key): part for key, part in values(value).items()}
        )
    if is_collection(origin):
        content = _converter(buildable(content_of(origin, rewritten)))
        return _special(hint, lambda value: origin(content(value)))
    changed = any(new is not old for new, old in zip(rewritten, args, strict=True))
    return origin[rewritten] if changed else hint


def _is_custom(hint: Any) -> bool:
    return hint is not Any and isinstance(type_info(hint), CustomType)


def _rewrite_union(hint: Any, args: tuple[Any, ...]) -> Any:
    """Drop members that no value can fit; use `_Choice` if msgspec cannot tell them apart."""
    members = []
    unmeetable = None
    for arg in args:
        try:
            members.append(buildable(arg))
        except _Unconvertible:
            raise
        except Unmeetable as error:
            unmeetable = error
    if not members:
        raise unmeetable or Unmeetable("it is empty")
    if Any in members:
        return Any
    union: Any = Union[tuple(members)]  # noqa: UP007 (known only here)
    if _is_known(union):
        return union
    return _special(hint, _Choice(hint, members))


def _is_known(hint: Any) -> bool:
    try:
        type_info(hint)
    except Exception:  # noqa: BLE001 (it evaluates hints of users' classes)
        return False
    return True


def _check(hint: Any) -> None:
    """Raise if msgspec cannot build a hint, or if no value can fit it."""
    try:
        info = type_info(hint)
    except (TypeError, ValueError) as error:
        raise _Unconvertible(str(error)) from None
    except RecursionError:
        raise
    except Exception as error:
        # A field of a class has a hint that cannot be evaluated.
        raise Unevaluated(str(error) or type(error).__name__) from error
    _check_info(info, [])


def _check_info(info: Type, seen: list[Type]) -> None:
    if any(info is other for other in seen):
        return
    seen.append(info)
    if isinstance(info, CustomType):
        _check_class(info.cls)
    elif isinstance(info, UnionType):
        _check_any(info.types, seen)
    elif isinstance(info, DictType) and isinstance(info.key_type, CustomType):
        raise _Unconvertible(
            f"keys of a dict in a class cannot become {name_of(info.key_type.cls)}"
        )
    elif isinstance(info, DataclassType) and is_model(info.cls):
        raise _Unconvertible(
            f"pydantic's class {info.cls.__name__} is in a class that is not pydantic's"
        )
    else:
        for name in info.__struct_fields__:
            parts = getattr(info, name)
            for part in parts if isinstance(parts, tuple) else (parts,):
                if isinstance(part, Type):
                    _check_info(part, seen)
                elif isinstance(part, Field):
                    _check_field(part, seen)


def _check_field(field: Field, seen: list[Type]) -> None:
    try:
        _check_info(field.type, seen)
    except _Unconvertible:
        raise
    except Unmeetable:
        # It may be left out.
        if field.required:
            raise


def _check_any(members: Iterable[Type], seen: list[Type]) -> None:
    unmeetable, met = None, False
    for member in members:
        try:
            _check_info(member, seen)
        except _Unconvertible:
            raise
        except Unmeetable as error:
            unmeetable = error
        else:
            met = True
    if unmeetable is not None and not met:
        raise unmeetable


def _check_class(cls: Any) -> None:
    if isinstance(cls, Special) or cls in _CONVERSIONS or is_pydantics(cls):
        return
    try:
        meetable = any(isinstance(value, cls) for value in _WHAT_ARRIVES)
    except Exception:  # noqa: BLE001 (a protocol that cannot be checked, or user code)
        raise Unmeetable(f"whether something is a {name_of(cls)} cannot be checked") from None
    if not meetable:
        raise Unmeetable(f"nothing that arrives is, or can become, a value of {name_of(cls)}")


# -- converting -----------------------------------------------------------------------------------


def _decode(hint: Any, value: Any) -> Any:
    """Convert a value into a type that msgspec has no rule for."""
    cls = get_origin(hint) or hint
    if isinstance(cls, Special):
        return cls.convert(value)
    conversion = _CONVERSIONS.get(cls)
    if conversion is not None:
        return conversion(hint, value)
    if is_pydantics(cls):
        return _model_inside(cls)(value)
    if not isinstance(value, cls):
        raise ValueError(f"Expected `{name_of(cls)}`, got `{type(value).__name__}`")
    return value


def _model(hint: Any) -> Converter:
    try:
        return model_converter(hint)
    except NameError:
        raise
    except Exception as error:
        # Pydantic evaluates the user's classes.
        raise Unmeetable(str(error).partition("\n")[0]) from error


# Models inside other classes are found only when there is a value.
_model_inside = lru_cache(_model)


class _Choice:
    """Convert into the first of several types that fits.

    A text or number that already has one of the types stays unchanged.  A dict becomes one of the
    types that know the most of its keys; otherwise it would fit every type without required fields.
    """

    def __init__(self, hint: Any, members: list[Any]) -> None:
        self._name = name_of(hint)
        self._as_it_is = {
            member for member in members if isinstance(member, type) and member not in (dict, list)
        }
        self._members = [(_converter(member), _keys(member)) for member in members]

    def __call__(self, value: Any) -> Any:
        if type(value) in self._as_it_is:
            return value
        most = 0
        if isinstance(value, dict):
            most = max(len(keys.intersection(value)) for _, keys in self._members)
        errors = []
        for convert, keys in self._members:
            if most and len(keys.intersection(value)) < most:
                continue
            try:
                return convert(value)
            except (ValueError, TypeError) as error:
                errors.append(str(error))
        raise ValueError(f"Expected `{self._name}`: {'; '.join(errors)}")


def _keys(hint: Any) -> frozenset[str]:
    """Return the keys of a dict that a type knows."""
    return frozenset(field.encode_name for field in getattr(type_info(hint), "fields", ()))


def _members(cls: EnumMeta) -> Converter:
    """Return a converter to the members of an enum, whose values may arrive as other ones.

    A tuple arrives as a list, a date as text.
    """
    arriving: list[tuple[Any, Any]] = []
    members: Iterable[Any] = cls
    for member in members:
        for form in (msgspec.json, msgspec.msgpack):
            # One that cannot be sent does not arrive.
            with suppress(Exception):
                arriving.append((form.decode(form.encode(member.value)), member))

    def convert(value: Any) -> Any:
        for arrived, member in arriving:
            if arrived == value:
                return member
        return cls(value)

    return convert


def _text(hint: Any, value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"Expected `str`, got `{type(value).__name__}`")
    return (get_origin(hint) or hint)(value)


def _path(hint: Any, value: Any) -> Any:
    return _text(pathlib.Path, value)


def _pattern(hint: Any, value: Any) -> Any:
    try:
        return _text(re.compile, value)
    except re.error as error:
        raise ValueError(f"Invalid pattern: {error}") from error


def _complex(hint: Any, value: Any) -> complex:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"Expected `complex`, got `{type(value).__name__}`")
    return complex(value)


def _collection(hint: Any, value: Any) -> Any:
    """Convert into a collection that is a field of a class, or that has no element type."""
    origin = get_origin(hint) or hint
    return origin(_converter(content_of(origin, get_args(hint)))(value))


def is_collection(origin: Any) -> bool:
    """Return whether a class is a collection that is made from a list or dict."""
    return origin in _COLLECTIONS


def content_of(origin: Any, args: tuple[Any, ...]) -> Any:
    """Return the hint of what a collection is made from, such as a list for a deque."""
    kind, more = _COLLECTIONS[origin]
    return kind[(*args, *more)] if args else kind


_CONVERSIONS: dict[Any, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(AS_TEXT, _text),
    pathlib.Path: _text,
    type(pathlib.Path()): _text,
    pathlib.PurePosixPath: _text,
    pathlib.PureWindowsPath: _text,
    os.PathLike: _path,
    re.Pattern: _pattern,
    complex: _complex,
    collections.deque: _collection,
    collections.OrderedDict: _collection,
    collections.Counter: _collection,
}

# Collections: the type that each is made from, and the type arguments that its hint leaves out, as
# for a Counter, which is a dict with int values.
_COLLECTIONS: dict[Any, tuple[Any, tuple[type, ...]]] = {
    collections.deque: (list, ()),
    collections.OrderedDict: (dict, ()),
    collections.Counter: (dict, (int,)),
}

# A value of each type in the formats: if none is an instance of a class, no value that arrives is.
_WHAT_ARRIVES: tuple[Any, ...] = (
    None,
    True,
    0,
    0.0,
    "",
    b"",
    [],
    {},
    datetime(2000, 1, 1, tzinfo=UTC),
)

_HOMES_OF_TYPES = ("typing", "typing_extensions", "types", "dataclasses", "annotationlib")
_LISTS = (Iterable, Collection, Container, Reversible)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_NO_HINTS_INSIDE = (typing.Literal, collections.abc.Callable, type)
_SAYS_NOTHING = (typing.ParamSpecArgs, typing.ParamSpecKwargs, typing.TypeVarTuple)


# -- constraints -----------------------------------------------------------------------


def _limits(meta: Any) -> list[msgspec.Meta]:
    """Return the constraints in one item of an `Annotated` hint."""
    if isinstance(meta, msgspec.Meta):
        return [meta]
    if not type(meta).__module__.startswith("annotated_types"):
        return []
    names = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length")
    limits = {name: getattr(meta, name, None) for name in names}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if not given:
        raise Unevaluated(f"amphora does not know what {repr_of(meta)} demands")
    return [msgspec.Meta(**given)]
