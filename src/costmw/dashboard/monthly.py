"""The report of a month, as a page of its own."""

from __future__ import annotations

from costmw.dashboard.headers import REVALIDATE, content_security_policy
from costmw.dashboard.messages import Request, Response
from costmw.dashboard.parameters import MONTH, REPORT_FORMAT, TZ, Parameters
from costmw.dashboard.questions import Questions
from costmw.monthly import render_html, render_markdown, style_hash


def report(request: Request, questions: Questions) -> Response:
    """`report?month=2026-10`: to read and print; with `format=md` to keep as text."""
    parameters = Parameters(request.query)
    told = questions.report(parameters.read(MONTH), parameters.read(TZ))
    if parameters.read(REPORT_FORMAT) == "md":
        headers = {"Content-Type": "text/markdown; charset=utf-8", "Cache-Control": REVALIDATE}
        return Response(200, headers, render_markdown(told).encode())
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": REVALIDATE,
        "Content-Security-Policy": content_security_policy(style_hash()),
    }
    return Response(200, headers, render_html(told).encode())
