"""Pieces of a page that stands alone: pictures and videos inside it, tables, the frame around it."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from repertoire.experiment.files import guard_writes, write_text
from repertoire.experiment.report_style import CSS

MAX_VIDEO = 12_000_000  # bytes of one video that is put inside the page
MAX_PAGE = 80_000_000  # bytes of all videos inside the page


def write_page(out: Path, title: str, body: Iterable[str]) -> Path:
    """Write one HTML file with its styles inside. Raises `UserError` when the disk is full or read-only."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    main = f"<main><h1>{escape(title)}</h1>{''.join(body)}</main>"
    with guard_writes(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    page = f"<!doctype html><html lang='en'><head>{head}<style>{CSS}</style></head><body>{main}</body></html>"
    return write_text(out, page)


def escape(value: Any) -> str:
    """Text for HTML."""
    return html.escape(str(value))


def block(heading: str, body: str) -> str:
    """A heading over `body`; nothing where there is nothing."""
    return f"<h3>{escape(heading)}</h3>{body}" if body else ""


def grid(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Table with a header row; the first cell of each row is its name."""
    head = "".join(f"<th>{escape(h)}</th>" for h in header)
    body = "".join(
        f"<tr><th>{escape(row[0])}</th>{''.join(f'<td>{escape(c)}</td>' for c in row[1:])}</tr>" for row in rows
    )
    return f'<div class="scroll"><table class="compare"><tr>{head}</tr>{body}</table></div>'


def image(png: bytes, name: str, style: str = "") -> str:
    """A picture inside the page."""
    uri = "data:image/png;base64," + base64.b64encode(png).decode()
    caption = f"<figcaption>{escape(name)}</figcaption>"
    return f'<figure class="{style}"><img alt="{escape(name)}" src="{uri}">{caption}</figure>'


def video(path: Path, out: Path, budget: list[int], name: str = "") -> str:
    """A video inside the page at `out`, or a link where it is too big; `budget` holds the bytes left."""
    name, size = name or path.stem.replace("_", " "), path.stat().st_size
    if size > MAX_VIDEO or size > budget[0]:
        return f'<p class="note">{escape(name)}: {size / 1e6:.0f} MB, too big to put inside: {link(path, out)}</p>'
    budget[0] -= size
    uri = "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
    tag = f'<video controls loop muted autoplay playsinline src="{uri}"></video>'
    return f"<figure>{tag}<figcaption>{escape(name)}</figcaption></figure>"


def link(path: Path, out: Path) -> str:
    """Relative link from the page at `out`."""
    relative = os.path.relpath(path.resolve(), out.parent.resolve())
    return f'<a href="{escape(Path(relative).as_posix())}">{escape(path.name)}</a>'
