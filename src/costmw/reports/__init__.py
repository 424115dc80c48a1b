"""Questions to the ledger and their answers, which are in `costmw.answers`."""

from costmw.reports.reports import Reports

__all__ = ["Reports"]
