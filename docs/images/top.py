"""Take the picture of `amphora top`: `python -m docs.images.top`, which takes 20 seconds."""

from __future__ import annotations

import logging
import os
import re
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import gevent
from rich.console import Console

from amphora import ManagementClient
from amphora.cli.operating.top import KEYS, History, render, take_sample
from amphora.cli.styled import laid_out
from docs.images.dashboard import shop

HERE = Path(__file__).parent
SAMPLES = 20
WIDTH, LINES = 112, 19
# The font of the terminal would come from another site.
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def main() -> None:
    logging.getLogger("amphora").addHandler(logging.NullHandler())
    with ExitStack() as made, open(os.devnull, "w") as nowhere:
        management = made.enter_context(ManagementClient(url=shop(made)))
        look = partial(take_sample, management, "orders")
        gevent.sleep(2)  # until all of them serve
        history = History("orders", look(), look)
        for _ in range(SAMPLES):
            gevent.sleep(1)
            history.look()
        parts = render(history.recent.frame(), sort="p95", size=(WIDTH, LINES))
        console = Console(record=True, width=WIDTH, file=nowhere, highlight=False, markup=False)
        console.print(laid_out([*parts, (("sorted by p95", "bold"),), ((KEYS, ""),)]))
        picture = FONTS.sub("", console.export_svg(title="amphora top orders"))
        (HERE / "top.svg").write_text(picture.replace("Fira Code", "DejaVu Sans Mono"))


if __name__ == "__main__":
    main()
