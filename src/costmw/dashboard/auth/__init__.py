"""Who may see the dashboard: closed unless the app says otherwise.

An `auth` is any callable that takes the request and gives a `Principal`, True for one
that sees everything, or None or False to refuse. Whatever else happens in it, the page
stays closed.
"""

from costmw.dashboard.auth.gate import Answer, Auth, Gate, Principal, Refusal
from costmw.dashboard.auth.proxies import ProxyUser, proxy_headers
from costmw.dashboard.auth.secrets import CHALLENGE, anonymous, basic, is_anonymous, token
from costmw.dashboard.auth.users import django_user, flask_login_user, signed_in, starlette_user

__all__ = [
    "CHALLENGE",
    "Answer",
    "Auth",
    "Gate",
    "Principal",
    "ProxyUser",
    "Refusal",
    "anonymous",
    "basic",
    "django_user",
    "flask_login_user",
    "is_anonymous",
    "proxy_headers",
    "signed_in",
    "starlette_user",
    "token",
]
