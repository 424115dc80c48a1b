"""What every LLM call in a web app costs, by route, user, tenant and feature."""

__version__ = "0.1.0"
