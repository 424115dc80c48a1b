"""What `costmw alert test` does, and says."""

from __future__ import annotations

from collections.abc import Sequence

from costmw.alerts.alert import alert_for_trial
from costmw.alerts.channel import Channel
from costmw.alerts.courier import told
from costmw.alerts.file import load_alerts
from costmw.config import Config
from costmw.errors import ConfigError, StoreError
from costmw.meter import Meter
from costmw.store.base import Store
from costmw.store.layers import alerts_of, open_store
from costmw.transfer.absence import is_absent


def try_channels(store: str, meters: Sequence[Meter] | None) -> tuple[str, bool]:
    """Send a test through each channel; gives what to say of it, and whether all have arrived.

    The channels are those of an app's meters, or of the file in `COSTMW_BUDGETS`. One that
    takes the test is opened again, if it was closed: what waits for it follows.

    Raises:
        ConfigError: when no channel is set up, or a setting cannot be used.
    """
    config = Config.from_environment()
    if meters is None:
        found = load_alerts(config.budgets_file) if config.budgets_file else None
        settings = [] if found is None else [(found, _ledger(store, config))]
    else:
        settings = [(meter.alerts, meter.store) for meter in meters if meter.alerts is not None]
    tried = [_test(channel, ledger) for alerts, ledger in settings for channel in alerts.channels]
    if not tried:
        raise ConfigError(
            "no channel is set up: name an app with Meter(alerts=[...]), as main:app, or a file "
            "with [alerts] in COSTMW_BUDGETS"
        )
    return "\n".join(line for line, _ in tried), all(arrived for _, arrived in tried)


def _test(channel: Channel, store: Store | None) -> tuple[str, bool]:
    try:
        channel.send(alert_for_trial())
    except Exception as error:  # noqa: BLE001 - of the channel, which may be the app's
        return f"{channel.name}: not delivered: {told(error)}", False
    rows = None if store is None or is_absent(store) else alerts_of(store)
    try:
        if rows is not None:
            rows.try_again(channel.name)
    except StoreError as error:
        return f"{channel.name}: delivered; what waits for it is not looked at: {error}", True
    return f"{channel.name}: delivered", True


def _ledger(store: str, config: Config) -> Store | None:
    try:
        return open_store(store or None, config)
    except ConfigError:
        if store:
            raise
        return None  # a test needs none
