"""Apps that show the page, one for each way to do so; `tests/test_hosts.py` serves them."""
