"""How calls are seen: HTTP clients and decorated functions."""
