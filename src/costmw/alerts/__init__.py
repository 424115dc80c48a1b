"""Alerts that arrive: each once in the ledger, delivered at least once, in order."""

from costmw.alerts.alert import Alert
from costmw.alerts.channel import Callback, Channel, ChannelClosed, Log, NotDelivered
from costmw.alerts.notifications import Apprise
from costmw.alerts.settings import Alerts
from costmw.alerts.webhook import Webhook

__all__ = [
    "Alert",
    "Alerts",
    "Apprise",
    "Callback",
    "Channel",
    "ChannelClosed",
    "Log",
    "NotDelivered",
    "Webhook",
]
