"""Settings: from code or the environment, refused early and by name."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest

from costmw import Config, Meter
from costmw.config import enabled_from_environment, store_from_environment, zone
from costmw.errors import ConfigError


def test_the_defaults_keep_every_event_before_its_call_returns() -> None:
    config = Config()

    assert ("commit", 1.0, None) == (config.durability, config.ack_timeout, config.time_zone)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().ack_timeout = 5  # type: ignore[misc]


@pytest.mark.parametrize("name", ["ack_timeout", "queue_size", "batch_size", "max_body_bytes"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), True, "1", None])
def test_numbers_that_are_none_or_not_above_zero_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} is .*above 0"):
        Config(**{name: value})


@pytest.mark.parametrize("value", [float("inf"), 1e12, 10**30])
def test_a_timeout_that_no_lock_can_wait_for_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="ack_timeout is"):
        Config(ack_timeout=value)
    assert threading.TIMEOUT_MAX == Config(ack_timeout=threading.TIMEOUT_MAX).ack_timeout


@pytest.mark.parametrize("value", ["", "fast", None, "COMMIT"])
def test_an_unknown_durability_is_refused_with_those_there_are(value: Any) -> None:
    with pytest.raises(ConfigError, match="durability is .*commit, process, async"):
        Config(durability=value)


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "Europe", "../../etc/passwd", "\0", "Z\ud800", 5, b"UTC"]
)
def test_what_is_no_time_zone_is_refused_by_name(name: Any) -> None:
    with pytest.raises(ConfigError, match="time_zone is .*IANA"):
        zone(name)
    with pytest.raises(ConfigError, match="time_zone is .*IANA"):
        Config(time_zone=name)


def test_the_environment_sets_what_code_leaves_out() -> None:
    config = Config.from_environment(
        {
            "COSTMW_DURABILITY": "process",
            "COSTMW_ACK_TIMEOUT": "2.5",
            "COSTMW_TIME_ZONE": "Europe/Berlin",
            "COSTMW_PRICES": "/etc/prices.toml",
            "COSTMW_HOSTS": "llm.internal=openai, gateway.internal = anthropic,",
        }
    )

    assert ("process", 2.5) == (config.durability, config.ack_timeout)
    assert ("Europe/Berlin", "/etc/prices.toml") == (config.time_zone, config.price_file)
    assert {"llm.internal": "openai", "gateway.internal": "anthropic"} == config.hosts


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Config() == Config.from_environment({})
    assert Config() == Config.from_environment({"COSTMW_DURABILITY": "", "COSTMW_ACK_TIMEOUT": ""})


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("COSTMW_ACK_TIMEOUT", "soon"),
        ("COSTMW_ACK_TIMEOUT", "-1"),
        ("COSTMW_ACK_TIMEOUT", "inf"),
        ("COSTMW_DURABILITY", "fast"),
        ("COSTMW_TIME_ZONE", "Mars/Olympus"),
        ("COSTMW_HOSTS", "llm.internal"),
        ("COSTMW_HOSTS", "=openai"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(variable: str, text: str) -> None:
    with pytest.raises(ConfigError, match=variable) as error:
        Config.from_environment({variable: text})

    assert text in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((text, True) for text in ("", "1", "true", " YES ", "on")),
        *((text, False) for text in ("0", "False", "no", "OFF ")),
    ],
)
def test_metering_is_on_unless_the_environment_says_no(text: str, expected: bool) -> None:
    assert expected is enabled_from_environment({"COSTMW_ENABLED": text})
    assert enabled_from_environment({}) is True


def test_a_switch_that_is_neither_on_nor_off_is_refused() -> None:
    with pytest.raises(ConfigError, match="COSTMW_ENABLED is 'maybe'"):
        enabled_from_environment({"COSTMW_ENABLED": "maybe"})


def test_the_store_comes_from_the_environment() -> None:
    assert store_from_environment({"COSTMW_STORE": "sqlite:///a.db"}) == "sqlite:///a.db"
    assert store_from_environment({"COSTMW_STORE": ""}) is None
    assert store_from_environment({}) is None


def test_a_meter_reads_the_environment(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTMW_STORE", store_url)
    monkeypatch.setenv("COSTMW_ENABLED", "0")
    monkeypatch.setenv("COSTMW_ACK_TIMEOUT", "7")

    meter = Meter()

    assert (store_url, False, 7.0) == (meter.store.url, meter.enabled, meter.config.ack_timeout)


def test_code_wins_over_the_environment(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTMW_STORE", "sqlite:///other.db")
    monkeypatch.setenv("COSTMW_ACK_TIMEOUT", "7")

    meter = Meter(store_url, config=Config(ack_timeout=3))

    assert (store_url, 3) == (meter.store.url, meter.config.ack_timeout)
