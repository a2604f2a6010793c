"""HTML by small functions. Arguments called `html` are taken as they are, texts are escaped."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nasflow.report.style import STYLE
from nasflow.report.text import esc
from searchspaces.files import write_text

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        key: Its id.
        title: Its heading, text.
        body: What stands in it, html.
    """

    key: str
    title: str
    body: str

    def html(self) -> str:
        """Return it under its heading."""
        title = f'<h2 id="{esc(self.key)}-title">{esc(self.title)}</h2>'
        return f'<section id="{esc(self.key)}" aria-labelledby="{esc(self.key)}-title">{title}\n{self.body}\n</section>'


def section(key: str, title: str, *html: str) -> Section:
    """Return a section of those parts that are not empty."""
    return Section(key, title, "\n".join(part for part in html if part))


def write_page(path: Path, title: str, subtitle: str, sections: Sequence[Section]) -> Path:
    """Write a whole page in one step; its policy forbids scripts and requests, whatever a name in it may contain.

    Args:
        path: The file.
        title: Heading, text.
        subtitle: What stands below it, html.
        sections: The sections.
    """
    links = "".join(f'<a href="#{esc(part.key)}">{esc(part.title)}</a>' for part in sections)
    body = "\n".join(part.html() for part in sections)
    html = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{esc(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<header><h1>{esc(title)}</h1><p class="muted">{subtitle}</p>\n'
        f'<nav aria-label="Sections">{links}</nav></header>\n'
        f"<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
    write_text(path, html)
    return path


def paragraph(html: str, css: str = "") -> str:
    """Return a paragraph."""
    return f'<p class="{css}">{html}</p>' if css else f"<p>{html}</p>"


def details(summary: str, html: str) -> str:
    """Return something that opens on a click."""
    return f"<details><summary>{esc(summary)}</summary>{html}</details>"


def code(text: str) -> str:
    """Return a block of code."""
    return f'<pre tabindex="0"><code>{esc(text)}</code></pre>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names with what they stand for (text, html)."""
    items = "".join(f"<div><dt>{esc(term)}</dt><dd>{html}</dd></div>" for term, html in pairs)
    return f'<dl class="facts">{items}</dl>'


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """Return large figures with their names (text, text)."""
    items = "".join(f"<div><dd>{esc(figure)}</dd><dt>{esc(term)}</dt></div>" for term, figure in pairs)
    return f'<dl class="tiles">{items}</dl>'


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[bool]) -> str:
    """Return a table whose first column names the row; on narrow screens each row becomes a block of labelled lines.

    Args:
        caption: What it holds; text.
        heads: Html of the column heads.
        rows: Html of the cells.
        numeric: Per column, whether it holds numbers.
    """
    labels = [f' data-label="{re.sub("<[^>]*>", "", html.replace("<small>", ", "))}"' for html in heads]
    css = [' class="n"' if is_number else "" for is_number in numeric]
    head = "".join(f'<th scope="col"{style}>{html}</th>' for html, style in zip(heads, css, strict=True))
    body = "".join(
        f'<tr><th scope="row"{labels[0]}>{cells[0]}</th>'
        + "".join(
            f"<td{style}{label}><div>{html}</div></td>"
            for html, style, label in zip(cells[1:], css[1:], labels[1:], strict=True)
        )
        + "</tr>\n"
        for cells in rows
    )
    return (
        f'<div class="scroll" role="region" aria-label="{esc(caption)}" tabindex="0"><table><caption>{esc(caption)}'
        f"</caption><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )
