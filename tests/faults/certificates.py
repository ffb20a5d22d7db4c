"""Certificates for tests, made with openssl: good ones, and all kinds of bad ones."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Certificate:
    """A certificate and its key, as files."""

    cert: Path
    key: Path


class Authority:
    """Somebody who signs certificates."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self.itself = self.self_signed(name)

    def self_signed(self, name: str) -> Certificate:
        """Return a certificate that vouches for itself."""
        made = self._files(name)
        subject = ("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
        openssl(
            "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-keyout", made.key, "-out", made.cert,
            "-days", "2", *subject,
        )  # fmt: skip
        return made

    def sign(
        self,
        name: str,
        alternative: str | None = "IP:127.0.0.1,DNS:localhost",
        *,
        days: int = 2,
    ) -> Certificate:
        """Return a certificate for `alternative`, or without any name but the old common one."""
        made = self._files(name)
        request = made.cert.with_suffix(".csr")
        openssl(
            "req", "-nodes", "-newkey", "rsa:2048", "-keyout", made.key, "-out", request,
            "-subj", "/CN=127.0.0.1",
        )  # fmt: skip
        extensions = made.cert.with_suffix(".ext")
        extensions.write_text(
            f"subjectAltName={alternative}\n" if alternative else "basicConstraints=CA:FALSE\n"
        )
        openssl(
            "x509", "-req", "-in", request, "-out", made.cert, "-days", str(days),
            "-CA", self.itself.cert, "-CAkey", self.itself.key, "-extfile", extensions,
        )  # fmt: skip
        return made

    def _files(self, name: str) -> Certificate:
        return Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")


def openssl(*arguments: object) -> None:
    """Run openssl."""
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
