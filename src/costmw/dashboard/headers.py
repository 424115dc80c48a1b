"""The headers that keep the page to itself."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from costmw.dashboard.encoding import encoded
from costmw.dashboard.messages import Request, Response

NO_STORE = "no-store"
REVALIDATE = "private, no-cache"
FOREVER = "private, max-age=31536000, immutable"


def content_security_policy(style: str = "'self'") -> str:
    """Nothing but the dashboard's own files, and no way to turn text into markup or code."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            f"style-src {style}",
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'self'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


SECURITY: Mapping[str, str] = {
    "Content-Security-Policy": content_security_policy(),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": NO_STORE,
}


def completed(request: Request, response: Response) -> Response:
    """The response with the headers that all have, and without a body for HEAD."""
    response = encoded(request, response)
    headers = {**SECURITY, **response.headers}
    if response.status not in (204, 304):
        headers["Content-Length"] = str(len(response.body))
    body = b"" if request.method == "HEAD" else response.body
    return Response(response.status, headers, body)


def is_from_elsewhere(request: Request) -> bool:
    """Whether a browser sent this for a page of another origin.

    The app may have CORS open for everyone; the dashboard's data is not part of that.
    Browsers leave `Sec-Fetch-Site` out over plain HTTP, and send `Origin` with a GET
    only when it is for another origin.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


def is_followed_link(request: Request) -> bool:
    """Whether a browser opens this as a page of its own, which no other page can read."""
    headers = request.headers
    return (
        headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    )
