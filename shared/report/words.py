"""The words, colours and paragraphs that the texts share."""

from __future__ import annotations

import textwrap

from rich.console import Console
from rich.text import Text

from shared.models import Status

# The order in which a person wants to hear of them.
STATUSES = (Status.PASS, Status.FAIL, Status.ERROR, Status.SKIPPED, Status.NOT_APPLICABLE)
HEADINGS = {
    Status.PASS: ("Pass", "green"),
    Status.FAIL: ("Fail", "bold red"),
    Status.ERROR: ("Error", "yellow"),
    Status.SKIPPED: ("Skipped", "cyan"),
    Status.NOT_APPLICABLE: ("N/A", "dim"),
}


def indented(console: Console, text: str, indent: int, style: str = "", first: str = "") -> None:
    """A paragraph with an indentation (in whose place `first` stands in the first line), its lines not padded."""
    width = max(console.width - indent, 20)
    for line in textwrap.wrap(text, width, break_on_hyphens=False):
        console.print(Text(first.ljust(indent) + line, style), soft_wrap=True)
        first = ""
