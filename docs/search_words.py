"""Words that people search for, and the pages that answer them.

Each word becomes a main entry of the index for its page, which the search shows before all else.
Whether it does is checked in what was built, at the end of each build of all pages.  (Where Sphinx
reads only some pages again, it leaves the entries of the others out of the search.)
"""

from __future__ import annotations

import json
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform

# Its terms stand beside the pages that use them.
GLOSSARY = "reference/glossary"

ANSWERS = {
    "coming-from/aio-pika": ["aio-pika"],
    "coming-from/celery": ["celery", "cron", "schedule"],
    "coming-from/grpc": ["grpc"],
    "coming-from/nameko": ["nameko"],
    "coming-from/oslo.messaging": ["openstack", "oslo.messaging"],
    "coming-from/pika": ["pika"],
    "coming-from/zerorpc": ["zeromq", "zerorpc"],
    "explanation/performance": ["benchmark", "latency"],
    "explanation/promises": ["at-least-once", "durability", "exactly once"],
    "explanation/topology": ["exchanges", "queues"],
    "how-to/cluster": ["quorum queues"],
    "how-to/connections": ["fork", "monkey patching", "reconnect"],
    "how-to/context": ["headers", "middleware"],
    "how-to/deadlines": ["cancel", "deadline", "timeout"],
    "how-to/deploy": ["production"],
    "how-to/everybody": ["broadcast", "fanout", "publish and subscribe"],
    "how-to/gateway": ["http", "json-rpc", "openapi", "rest"],
    "how-to/health": ["liveness probe", "readiness"],
    "how-to/keys": ["routing key"],
    "how-to/large-bodies": ["files", "large messages", "upload"],
    "how-to/logs": ["logging"],
    "how-to/long-work": ["background job", "consumer timeout", "long running"],
    "how-to/manage-workers": ["dead letter"],
    "how-to/monitor": [
        *("alerts", "metrics", "monitoring", "opentelemetry", "prometheus", "trace", "tracing"),
    ],
    "how-to/overload": ["backpressure", "load shedding", "rate limit"],
    "how-to/retry-safely": [
        *("duplicate", "idempotency", "idempotent", "retries", "retry", "transaction"),
    ],
    "how-to/run-workers": ["container", "docker", "kubernetes", "systemd"],
    "how-to/scale": ["memory"],
    "how-to/secure": ["password", "permissions", "tls"],
    "how-to/serve": ["async def", "pydantic", "threads", "type hints", "warm stop"],
    "how-to/streams": ["generator", "progress"],
    "how-to/test": ["pytest", "tests"],
    "how-to/troubleshoot": ["troubleshooting"],
    "how-to/typed-calls": ["mypy", "stubs"],
    "how-to/upgrade": ["deployment without downtime", "version"],
    "how-to/values": ["bytes", "json", "msgpack", "serializer"],
    "how-to/web-servers": ["asyncio", "django", "fastapi", "flask", "gunicorn", "wsgi"],
    "reference/errors": ["errors", "exceptions"],
    "reference/glossary": ["prefetch", "priority"],
    "reference/limits": ["limits"],
    "reference/settings": ["environment variables", "settings"],
    "start/install": ["install", "pip"],
}


def setup(app):
    app.add_transform(Mark)
    app.connect("env-before-read-docs", note_pages)
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Mark(SphinxTransform):
    """Have the words of a page in the index."""

    default_priority = 800  # before what is in the index is noted, at 850

    def apply(self):
        words = ANSWERS.get(self.env.docname, [])
        page = next(self.document.findall(nodes.section))
        entries = [("single", word, page["ids"][0], "main", None) for word in words]
        page.insert(1, addnodes.index(entries=entries, inline=False))


def note_pages(app, env, names):
    env.reads_all = set(names) == env.found_docs


def check(app, exception):
    """Raise an error if a word leads to no page, or to another one."""
    if exception is None and app.builder.name == "html" and app.env.reads_all:
        wrong = list(misleading(Path(app.outdir) / "searchindex.js"))
        if wrong:
            raise ExtensionError("the search does not lead to the answer: " + "; ".join(wrong))


def misleading(built):
    """Yield what is wrong with the search index that was built."""
    text = built.read_text(encoding="utf-8")
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    for page, words in ANSWERS.items():
        if page not in index["docnames"]:
            yield f"there is no page {page}"
            continue
        for word in words:
            # Each is a page's number, an anchor in it, and whether it is a main entry. Such an
            # entry comes before titles, if it is just the word that was typed.
            first = {
                index["docnames"][number]
                for number, _, main in index["indexentries"].get(word, [])
                if main
            }
            if page not in first or not first <= {page, GLOSSARY}:
                yield f"{word!r} leads to {sorted(first)}, and not to {page}"
