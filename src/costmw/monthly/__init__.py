"""The report of a month: everything about its cost on one page, as HTML or Markdown."""

from costmw.monthly.asking import monthly_report
from costmw.monthly.findings import MonthlyReport
from costmw.monthly.html import style_hash
from costmw.monthly.month import Month, month_of
from costmw.monthly.rendering import render_html, render_markdown

__all__ = [
    "Month",
    "MonthlyReport",
    "month_of",
    "monthly_report",
    "render_html",
    "render_markdown",
    "style_hash",
]
