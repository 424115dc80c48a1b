"""Alerts by Slack, e-mail, Teams, PagerDuty and a hundred more, through apprise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from costmw.alerts.alert import Alert
from costmw.alerts.channel import NotDelivered, digest_of
from costmw.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    import apprise


class Apprise:
    """Sends alerts to services that apprise knows: `Apprise("slack://...", name="slack")`.

    With several URLs an alert is delivered once all of them have it: where one fails, all
    get it again. Give each a channel of its own to keep them apart.

    Args:
        urls: as in https://appriseit.com/services/; they hold secrets, and are never shown.
        name: what the ledger knows it by.

    Raises:
        ConfigError: when a URL is none that apprise knows.
        MissingExtra: when apprise is not installed.
    """

    def __init__(self, *urls: str, name: str = "apprise") -> None:
        self.name = name
        self.address = digest_of(*urls)
        self._urls = urls
        self._services = _services_of(urls, name)

    def send(self, alert: Alert) -> None:
        """Notify all of them.

        Raises:
            NotDelivered: when one of them was not.
        """
        import apprise

        kind = apprise.NotifyType.INFO if alert.kind == "test" else apprise.NotifyType.WARNING
        if not self._services.notify(
            body=alert.message, title=alert.title, notify_type=kind, interpret_escapes=False
        ):
            raise NotDelivered(f"{self.name}: apprise could not notify all of it")


def _services_of(urls: Sequence[str], name: str) -> apprise.Apprise:
    try:
        import apprise
    except ImportError as error:
        raise MissingExtra(package="apprise", extra="alerts") from error
    if not urls:
        raise ConfigError(f"{name!r} has no URL; give it one, as in Apprise('slack://...')")
    services = apprise.Apprise()
    for number, url in enumerate(urls, 1):
        if not services.add(url):
            raise ConfigError(
                f"URL {number} of {name!r} is none that apprise knows; see "
                "https://appriseit.com/services/"
            )
    return services
