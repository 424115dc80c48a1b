"""A monthly report as somebody reads it."""

from __future__ import annotations

from costmw.monthly.findings import MonthlyReport
from costmw.monthly.html import as_html
from costmw.monthly.markdown import as_markdown
from costmw.monthly.wording import document_of


def render_html(report: MonthlyReport) -> str:
    """Write it as one HTML page; a policy must allow its style by `style_hash()`."""
    return as_html(document_of(report))


def render_markdown(report: MonthlyReport) -> str:
    """Write it as Markdown."""
    return as_markdown(document_of(report))
