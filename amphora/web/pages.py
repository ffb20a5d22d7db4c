"""Pages whose modules, styles and pictures all come from this server."""

from __future__ import annotations

from importlib.resources import files

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
]
# For an answer that comes part by part: nginx would hold parts back until it has some kilobytes.
AT_ONCE = ("X-Accel-Buffering", "no")


def static_files(package: str) -> dict[str, bytes]:
    """Return the files in a package's folder `static`, by name."""
    return {
        each.name: each.read_bytes()
        for each in (files(package) / "static").iterdir()
        if each.name.rpartition(".")[2] in TYPES
    }


def type_of(name: str) -> str:
    """Return the content type of a file."""
    return TYPES[name.rpartition(".")[2]]
