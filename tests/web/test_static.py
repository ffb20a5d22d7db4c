"""The files of the page: they need nothing but each other."""

from __future__ import annotations

import re

from tests.support.processes import ROOT

STATIC = ROOT / "amphora" / "web" / "static"


def test_nothing_is_asked_of_another_host_and_nothing_is_inline() -> None:
    page = (STATIC / "index.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("/static/", "#")) for source in sources)
    assert not re.search(r"<style|<script(?![^>]* src=)| style=| on\w+=", page)
    for path in STATIC.glob("*.js"):
        text = path.read_text()
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), path
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(", text), path
        for name in re.findall(r'from "\./([^"]*)"', text):
            assert (STATIC / name).is_file()
    assert not re.search(r"@import|url\(", (STATIC / "style.css").read_text())
