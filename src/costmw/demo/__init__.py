"""`costmw demo`: the example app, a provider that costs nothing, a past and live traffic."""

from costmw.demo.serving import run_demo

__all__ = ["run_demo"]
