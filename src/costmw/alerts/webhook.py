"""Alerts as signed HTTP requests."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.parse import urlsplit

from costmw import __version__
from costmw.alerts.alert import Alert
from costmw.alerts.channel import ChannelClosed, NotDelivered, digest_of
from costmw.alerts.signing import key_of, signature_of
from costmw.errors import ConfigError

GONE = 410


class Webhook:
    """Posts alerts to a URL, as JSON, signed as Standard Webhooks has it.

    Any status from 200 to 299 says that it has arrived. 410 (gone) closes the channel;
    everything else, redirects too, has it tried again.

    Args:
        url: where to; `https://...`, or `http://...` inside of your own network.
        secret: `whsec_` and 24 to 64 bytes in base64. Several while they are exchanged: each
            signs. None sends without signatures.
        name: what the ledger knows it by.
        timeout: seconds to wait for the receiver, each time.

    Raises:
        ConfigError: when the URL or a secret cannot be used; neither is repeated.
    """

    def __init__(
        self,
        url: str,
        secret: str | Sequence[str] | None = None,
        *,
        name: str = "webhook",
        timeout: float = 10.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ConfigError(f"the URL of {name!r} is none of https://host/path")
        if parts.username is not None or parts.password is not None:
            raise ConfigError(
                f"the URL of {name!r} has a password, which would not be sent; requests are signed"
            )
        if isinstance(timeout, bool) or not 0 < timeout <= 30:
            raise ConfigError(f"timeout of {name!r} is {timeout!r}; use 1 to 30 seconds")
        secrets = (secret,) if isinstance(secret, str) else tuple(secret or ())
        self.name = name
        self.address = digest_of(url)
        self._url = url
        self._keys = tuple(key_of(one) for one in secrets)
        self._timeout = timeout

    def send(self, alert: Alert) -> None:
        """Post one alert.

        Raises:
            ChannelClosed: when the receiver says that it is gone.
            NotDelivered: when it did not say that it has it.
        """
        body = alert.as_json().encode("utf-8", "replace")
        message_id, timestamp = f"msg_{alert.id.hex}", int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": f"costmw/{__version__}",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
        }
        if self._keys:
            headers["webhook-signature"] = signature_of(self._keys, message_id, timestamp, body)
        # The scheme is checked where it is made.
        request = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310
        try:
            with _opener().open(request, timeout=self._timeout):
                return
        except urllib.error.HTTPError as error:
            status = error.code
            error.close()
        except (OSError, HTTPException, ValueError) as error:
            # What they say may have the URL in it, and that a token.
            why = getattr(error, "reason", error)
            said = why.strerror if isinstance(why, OSError) and why.strerror else type(why).__name__
            raise NotDelivered(f"{self._host} cannot be reached: {said}") from None
        if status == GONE:
            raise ChannelClosed(f"{self._host} says that it is gone (410)")
        hint = "; name the URL that it leads to" if 300 <= status < 400 else ""
        raise NotDelivered(f"{self._host} answers {status}{hint}")

    @property
    def _host(self) -> str:
        return urlsplit(self._url).hostname or ""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A signed alert goes where it was meant to go, and nowhere else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        """None of them is followed."""


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirects)
