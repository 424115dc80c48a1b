"""Scripts that race for one cap, each under another library that promises to hold it.

Each runs in an environment of its own, in which costmw is not installed (its own one apart).
"""
