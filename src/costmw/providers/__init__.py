"""The wire formats of LLM providers: what a request asks for, what a response used.

One file a format family; `registry` finds the one that an exchange is in.
"""
