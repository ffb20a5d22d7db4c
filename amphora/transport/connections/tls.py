"""TLS as a broker's URL says, with what its files say now.

Certificates are replaced every few weeks, and a program may connect again months after its start.
So the files are read again when they were replaced.  One that cannot be used is one that is just
being replaced, or that the program may not read any more: until it can be used, what was read
before is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import gevent.ssl

from amphora.errors import printable
from amphora.net.log import Log

log = Log("amphora.transport")


class TlsFiles(NamedTuple):
    """The files that a URL names; None for none.  Without a `cafile`, the system's are used."""

    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None


class Tls:
    """What makes a connection one of TLS: a context.

    Args:
        context: the context of all connections.
    """

    def __init__(self, context: gevent.ssl.SSLContext) -> None:
        self._context = context

    @property
    def verifies(self) -> bool:
        """Whether the broker has to show a certificate that is valid."""
        return self._context.verify_mode != gevent.ssl.CERT_NONE

    def context(self) -> gevent.ssl.SSLContext:
        """Return the context for the next connection."""
        return self._context


class TlsOfFiles(Tls):
    """A context that is made again when one of its files was replaced.

    Args:
        files: the files.
        skip_verification: accept any certificate of the broker.

    Raises:
        ValueError: a file cannot be used.
    """

    def __init__(self, files: TlsFiles, *, skip_verification: bool = False) -> None:
        self._files = files
        self._skip_verification = skip_verification
        # Before they are read: one that is replaced meanwhile is read again.
        self._read = self._versions()
        # What was logged last, so that nothing is logged twice.
        self._reported = ""
        super().__init__(_make_context(files, skip_verification))

    def context(self) -> gevent.ssl.SSLContext:
        """Return the context for the next connection, of the files as they are now."""
        versions = self._versions()
        if versions != self._read:
            try:
                self._context = _make_context(self._files, self._skip_verification)
            except ValueError as error:
                if self._reported != str(error):
                    self._reported = str(error)
                    log.warning("%s; what was read before is used", error)
            else:
                self._read, self._reported = versions, ""
        return self._context

    def _versions(self) -> list[tuple[int, ...] | None]:
        return [_version(file) for file in self._files if file is not None]


def _version(file: str) -> tuple[int, ...] | None:
    """Return what is another for a file that was replaced; None if that cannot be seen."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _make_context(files: TlsFiles, skip_verification: bool) -> gevent.ssl.SSLContext:
    # Not create_default_context: without monkey-patching, its context comes from the standard
    # library, whose sockets block the hub.  A client context verifies by default.
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
    if files.cafile is not None:
        with _named("cafile", files.cafile):
            context.load_verify_locations(files.cafile)
    else:
        context.load_default_certs()
    context.minimum_version = gevent.ssl.TLSVersion.TLSv1_2
    if files.certfile is not None:
        names = [file for file in (files.certfile, files.keyfile) if file is not None]
        hint = "" if files.keyfile else "; without a keyfile, the key must be in it as well"
        with _named("certfile", " with ".join(names), hint):
            context.load_cert_chain(files.certfile, files.keyfile)
    if skip_verification:
        context.check_hostname = False
        context.verify_mode = gevent.ssl.CERT_NONE
    return context


@contextmanager
def _named(option: str, file: str, hint: str = "") -> Iterator[None]:
    """Name the unusable file in the error: the system and OpenSSL do not.

    Args:
        hint: what may be the matter with its contents.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if isinstance(error, gevent.ssl.SSLError):
            why += hint
        raise ValueError(
            f"the {option} {printable(file)} of the broker's URL cannot be used: {why}"
        ) from None
