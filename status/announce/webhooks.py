"""Webhooks: a POST of JSON for each change, signed so that its receiver can tell it from anybody else's.

    X-Evenkeel-Delivery: the id of the delivery, the same however often it is tried
    X-Evenkeel-Timestamp: seconds since the epoch, of this attempt
    X-Evenkeel-Signature: v1=HEX, the HMAC-SHA256 of "TIMESTAMP.BODY" by the subscriber's secret

A receiver refuses what is older than five minutes, and what it has taken already.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable

import httpx
import msgspec

from status.announce.chats import TIMEOUT_S, post
from status.announce.delivery import Delivery, NotDelivered, Refused
from status.announce.subscribers import Webhook

_RETRIED = (408, 409, 425, 429)
_OK_FROM, _OK_TO = 200, 300


class WebhookChannel:
    def __init__(
        self,
        subscriber: Webhook,
        secret: str,
        client: httpx.AsyncClient | None = None,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._subscriber = subscriber
        self._secret = secret
        self._client = client or httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False)
        self._clock_s = clock_s

    async def deliver(self, delivery: Delivery) -> str:
        body = msgspec.json.encode({"delivery": delivery.id, **msgspec.to_builtins(delivery.message)})
        timestamp = str(int(self._clock_s()))
        headers = {
            "content-type": "application/json",
            "x-evenkeel-delivery": delivery.id,
            "x-evenkeel-timestamp": timestamp,
            "x-evenkeel-signature": f"v1={signature(self._secret, timestamp, body)}",
        }
        answer = await post(self._client, self._subscriber.url, content=body, headers=headers)
        if answer.status_code in _RETRIED:
            raise NotDelivered(f"the receiver said {answer.status_code}")
        if not _OK_FROM <= answer.status_code < _OK_TO:
            raise Refused(f"the receiver said {answer.status_code}")
        return delivery.message.subject

    async def close(self) -> None:
        await self._client.aclose()


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a body, for those who receive it too."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
