"""Chats: Telegram's Bot API, and Slack's Web API or what speaks it. One message a subject, which is edited."""

from __future__ import annotations

import html
from typing import Any

import httpx

from status.announce.delivery import Delivery, NotDelivered, Refused
from status.announce.messages import Message
from status.announce.subscribers import Slack, Telegram
from status.model import Impact

TIMEOUT_S = 10.0
TELEGRAM_TEXT_MAX = 4_096
SLACK_TEXT_MAX = 3_000
_ICONS = {
    Impact.CRITICAL: "🔴",
    Impact.MAJOR: "🟠",
    Impact.MINOR: "🟡",
    Impact.MAINTENANCE: "🔧",
    Impact.NONE: "⚪",
}
_SERVER_ERROR, _TOO_MANY = 500, 429


class TelegramChannel:
    """A message whose edit failed since it is as it should be already has been delivered."""

    def __init__(self, subscriber: Telegram, token: str, client: httpx.AsyncClient | None = None) -> None:
        self._subscriber = subscriber
        self._url = f"{subscriber.base_url.rstrip('/')}/bot{token}"
        self._client = client or httpx.AsyncClient(timeout=TIMEOUT_S)

    async def deliver(self, delivery: Delivery) -> str:
        fields: dict[str, Any] = {
            "chat_id": self._subscriber.chat_id,
            "text": telegram_text(delivery.message),
            "parse_mode": "HTML",
            "link_preview_options": {"is_disabled": True},
        }
        if not delivery.reference:
            sent = await self._call("sendMessage", fields)
            return str(sent["message_id"])
        try:
            await self._call("editMessageText", {**fields, "message_id": int(delivery.reference)})
        except Refused as error:
            if "not modified" not in str(error):
                raise
        return delivery.reference

    async def _call(self, method: str, fields: dict[str, Any]) -> dict[str, Any]:
        answer = await post(self._client, f"{self._url}/{method}", json=fields)
        content = _json(answer)
        if answer.status_code == _TOO_MANY:
            after_s = content.get("parameters", {}).get("retry_after")
            raise NotDelivered(f"Telegram: {content.get('description')}", after_s)
        if not content.get("ok"):
            raise Refused(f"Telegram: {content.get('description', answer.status_code)}")
        result = content["result"]
        return result if isinstance(result, dict) else {}

    async def close(self) -> None:
        await self._client.aclose()


def telegram_text(message: Message) -> str:
    head = f"{_icon(message)} <b>{html.escape(message.title)}</b>\n"
    tail = f'\n\n<a href="{html.escape(message.url)}">Status page</a>'
    room = TELEGRAM_TEXT_MAX - len(head) - len(tail)
    return head + _cut(html.escape(message.text), room) + tail


class SlackChannel:
    def __init__(self, subscriber: Slack, token: str, client: httpx.AsyncClient | None = None) -> None:
        self._subscriber = subscriber
        self._headers = {"authorization": f"Bearer {token}"}
        self._client = client or httpx.AsyncClient(timeout=TIMEOUT_S)

    async def deliver(self, delivery: Delivery) -> str:
        fields = {"channel": self._subscriber.room, "text": slack_text(delivery.message), "unfurl_links": False}
        if not delivery.reference:
            sent = await self._call("chat.postMessage", {**fields, "client_msg_id": delivery.id})
            return str(sent["ts"])
        await self._call("chat.update", {**fields, "ts": delivery.reference})
        return delivery.reference

    async def _call(self, method: str, fields: dict[str, Any]) -> dict[str, Any]:
        url = f"{self._subscriber.base_url.rstrip('/')}/{method}"
        answer = await post(self._client, url, json=fields, headers=self._headers)
        content = _json(answer)
        if answer.status_code == _TOO_MANY or content.get("error") == "ratelimited":
            raise NotDelivered("Slack: rate limited", _seconds(answer.headers.get("retry-after")))
        if not content.get("ok"):
            raise Refused(f"Slack: {content.get('error', answer.status_code)}")
        return content

    async def close(self) -> None:
        await self._client.aclose()


def slack_text(message: Message) -> str:
    def escaped(text: str) -> str:
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    head, tail = f"{_icon(message)} *{escaped(message.title)}*\n", f"\n\n<{message.url}|Status page>"
    return head + _cut(escaped(message.text), SLACK_TEXT_MAX - len(head) - len(tail)) + tail


async def post(client: httpx.AsyncClient, url: str, **request: Any) -> httpx.Response:
    """Raises `NotDelivered` where nobody answers, or the server says that it is not well."""
    try:
        answer = await client.post(url, **request)
    except httpx.HTTPError as error:
        # The address may hold a token.
        raise NotDelivered(f"no answer: {type(error).__name__}") from error
    if answer.status_code >= _SERVER_ERROR:
        raise NotDelivered(f"the server said {answer.status_code}", _seconds(answer.headers.get("retry-after")))
    return answer


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError as error:
        raise NotDelivered(f"expected JSON, found {answer.status_code} {answer.text[:100]!r}") from error
    return content if isinstance(content, dict) else {}


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.replace(".", "", 1).isdigit() else None


def _icon(message: Message) -> str:
    return "✅" if message.is_over else _ICONS[message.impact]


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1].rsplit("\n", 1)[0] + "…"
