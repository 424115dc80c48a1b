"""What `costmw report` does, beyond its options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from costmw.budget_file import load_budgets
from costmw.budgets import Budget
from costmw.config import Config, zone
from costmw.errors import ConfigError, StoreError
from costmw.monthly.asking import monthly_report
from costmw.monthly.rendering import render_html, render_markdown
from costmw.price_overrides import load_overrides
from costmw.pricing import Pricing
from costmw.store.base import Store
from costmw.store.layers import open_store
from costmw.transfer.absence import is_absent
from costmw.transfer.spans import tag_of

Format = Literal["html", "md"]

STANDARD_OUTPUT = "-"


def write_report(
    store: str, month: str, *, file_format: str, output: str, scope: Sequence[str], tz: str
) -> tuple[str, str]:
    """Make a report and write it; gives what to print, and what to say of it.

    Raises:
        CostmwError: when an option, the file or the store cannot be used.
    """
    kind = _format_of(file_format, output)
    config = Config.from_environment()
    own_prices = load_overrides(config.price_file) if config.price_file else ()
    ledger = open_store(store or None, config)
    try:
        if is_absent(ledger):
            raise StoreError(f"there is no store at {ledger.url}")
        ledger.open()
        report = monthly_report(
            ledger,
            month,
            scope=dict(tag_of(pair, "--scope") for pair in scope),
            budgets=_budgets_of(ledger, config),
            pricing=Pricing((*config.prices, *own_prices)),
            zone=zone(tz) if tz else None,
            source=ledger.url,
        )
    finally:
        ledger.close()
    text = render_html(report) if kind == "html" else render_markdown(report)
    if output == STANDARD_OUTPUT:
        return text, ""
    try:
        Path(output).write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror or error}") from error
    return "", f"The report of {report.month.name} is in {output}"


def _budgets_of(ledger: Store, config: Config) -> list[Budget]:
    """Those of the file, and those that block in an app's code: the ledger keeps them."""
    of_file = load_budgets(config.budgets_file) if config.budgets_file else ()
    names = {budget.name for budget in of_file}
    with ledger.snapshot() as view:
        kept = [one.rule for one in view.rules().kept.values() if one.source == "code"]
    return [*of_file, *(rule.budget() for rule in kept if rule.name not in names)]


def _format_of(file_format: str, output: str) -> Format:
    match file_format or Path(output).suffix.removeprefix("."):
        case "html" | "htm":
            return "html"
        case "md" | "markdown":
            return "md"
        case "":
            return "md" if output == STANDARD_OUTPUT else "html"
        case other:
            raise ConfigError(f"the format is {other!r}; use html or md")
