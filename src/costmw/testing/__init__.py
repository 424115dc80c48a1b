"""Run apps and tests against a provider that costs nothing."""
