"""The page inside the app: what LLM calls cost, for those whom the app lets in."""

from costmw.dashboard.asgi import DashboardASGI
from costmw.dashboard.auth import Principal, anonymous, basic, token
from costmw.dashboard.wsgi import DashboardWSGI

__all__ = ["DashboardASGI", "DashboardWSGI", "Principal", "anonymous", "basic", "token"]
