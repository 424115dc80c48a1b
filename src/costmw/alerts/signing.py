"""Signatures of webhooks, as https://www.standardwebhooks.com has them.

What is signed is `<id>.<timestamp>.<body>`, with HMAC-SHA256; a receiver that checks id and
timestamp too cannot be fooled by an old request that is sent again.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence

from costmw.errors import ConfigError

PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64
"""Bytes of a secret."""

_MAKE_ONE = (
    'make one with: python -c "import base64, secrets; '
    "print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\""
)


def key_of(secret: str) -> bytes:
    """The key in a secret such as `whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw`.

    Raises:
        ConfigError: when it is none; the secret is not repeated.
    """
    if not isinstance(secret, str) or not secret.startswith(PREFIX):
        raise ConfigError(f"the secret of a webhook begins with {PREFIX}; {_MAKE_ONE}")
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ConfigError(f"the secret of a webhook is not base64; {_MAKE_ONE}") from None
    if not SHORTEST <= len(key) <= LONGEST:
        raise ConfigError(
            f"the secret of a webhook has {len(key)} bytes, and needs {SHORTEST} to {LONGEST}; "
            f"{_MAKE_ONE}"
        )
    return key


def signature_of(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: one signature for each key, so that keys can change."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    return " ".join(
        f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}" for key in keys
    )
