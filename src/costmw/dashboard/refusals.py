"""What those see whom the dashboard does not let in."""

from __future__ import annotations

import base64
import functools
import hashlib

from costmw.dashboard.auth import Refusal
from costmw.dashboard.headers import content_security_policy
from costmw.dashboard.messages import Request, Response
from costmw.dashboard.problems import problem

_STYLE = """
:root { color-scheme: light dark; }
body { max-width: 42rem; margin: 12vh auto 3rem; padding: 0 1.25rem;
  font: 1rem/1.6 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; }
pre { padding: 1rem; overflow-x: auto; border: 1px solid #8886; border-radius: 8px;
  font: 0.875rem/1.6 ui-monospace, monospace; }
code { font-family: ui-monospace, monospace; font-size: 0.9em; }
"""

_NOT_SET_UP = """
<h1>This page is closed</h1>
<p>It shows what the LLM calls of this app cost. It opens only for people whom the app lets
in, and the app has not said yet who they are.</p>
<p><strong>If you run the app:</strong> give the dashboard an <code>auth</code>. The shortest
way is a secret:</p>
<pre><code>from costmw.dashboard.auth import token

auth=token(os.environ["LLMCOST_TOKEN"])</code></pre>
<p>Make one with <code>python -c "import secrets; print(secrets.token_urlsafe(32))"</code>.
Your browser then asks for a name and a password: any name will do, the secret is the
password.</p>
<p>If your app has users of its own, ask it instead. Return a <code>Principal</code> to let
somebody in, None to refuse; a scope confines what they see:</p>
<pre><code>from costmw.dashboard.auth import Principal

def admins_only(request):
    if request.user.is_admin:
        return Principal()
    if request.user.tenant:
        return Principal(scope={"tenant": request.user.tenant})
    return None</code></pre>
<p>On your own machine, while developing, <code>auth=anonymous()</code> lets everyone in.</p>
"""

_NOT_SIGNED_IN = """
<h1>Sign in to see this page</h1>
<p>Reload it, and give the name and password (or any name and the token) that the app was
set up with.</p>
"""

_DENIED = """
<h1>You may not see this page</h1>
<p>The app did not let you in. Sign in there with an account that may see what its LLM calls
cost, then reload this page.</p>
"""

_FAILED = """
<h1>This page stays closed</h1>
<p>The app could not tell who you are, so nobody is let in. Its log says what went wrong; look
there for <code>costmw</code>.</p>
"""

_REFUSALS = {
    Refusal.NOT_SET_UP: (
        403,
        "The dashboard has no auth, so it is closed: pass auth= where it is mounted.",
        _NOT_SET_UP,
    ),
    Refusal.NOT_SIGNED_IN: (
        401,
        "Send the token as 'Authorization: Bearer ...', or a name and password.",
        _NOT_SIGNED_IN,
    ),
    Refusal.DENIED: (403, "The app did not let you in: sign in there first.", _DENIED),
    Refusal.FAILED: (
        500,
        "The app could not tell who you are, so nobody is let in; its log says why.",
        _FAILED,
    ),
}


def refused(request: Request, refusal: Refusal, challenge: str | None) -> Response:
    """A page for people, problem+json for programs."""
    status, detail, text = _REFUSALS[refusal]
    headers = {}
    if challenge and refusal is Refusal.NOT_SIGNED_IN:
        headers["WWW-Authenticate"] = challenge
    if request.path.startswith("/api/"):
        return problem(status, detail, headers)
    headers["Content-Type"] = "text/html; charset=utf-8"
    headers["Content-Security-Policy"] = content_security_policy(_style_hash())
    page = (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>LLM cost</title>\n<style>{_STYLE}</style>\n<main>{text}</main>\n"
    )
    return Response(status, headers, page.encode())


@functools.cache
def _style_hash() -> str:
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return f"'sha256-{digest}'"
