"""Rows out of a ledger and into one: files of the `llm_usage_events` shape."""
