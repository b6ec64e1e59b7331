"""The channels. `deliver` returns a reference that a later message of the same subject goes by, or raises.

What a channel can promise of a message whose answer was lost, or whose service died before it was noted as sent:
webhooks and e-mail carry an id of the message, by which the other side can tell a repeat; an edit in a chat does the
same again; only the first message in a chat may then appear twice.
"""

from __future__ import annotations

import asyncio
import hmac
import smtplib
from email.message import EmailMessage
from email.utils import formatdate
from hashlib import sha256
from typing import Any, Protocol

import httpx
import msgspec

from status.announce.letters import Letter
from status.announce.subscribers import Mail

_TELEGRAM_MAX = 4_096
_SLACK_MAX = 12_000
_SERVER_ERRORS = 500
_FINAL = frozenset({400, 401, 403, 404, 405, 410, 413, 422})
"""Answers that do not change by asking again."""


class NotDelivered(Exception):
    """The other side did not take the message."""

    def __init__(self, why: str, *, is_final: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.is_final = is_final
        self.retry_after_s = retry_after_s


class Channel(Protocol):
    takes_all: bool
    """Each letter is sent; else a newer one says all that older ones that still wait would have."""
    gathers: bool
    """Letters of a subject keep a distance in time."""

    async def deliver(self, letter: Letter, to: str, secret: str, reference: str, at_s: int) -> str: ...


class Webhook:
    """POST of JSON, signed: `Evenkeel-Signature: v1=HEX` is the HMAC-SHA256 of `TIMESTAMP.BODY`."""

    takes_all = True
    gathers = False

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def deliver(self, letter: Letter, to: str, secret: str, reference: str, at_s: int) -> str:
        body = msgspec.json.encode({"id": letter.id, "created_ns": letter.created_ns, **letter.content.event})
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": letter.id,
            "Evenkeel-Timestamp": str(at_s),
        }
        if secret:
            headers["Evenkeel-Signature"] = f"v1={signature(secret, at_s, body)}"
        await _post(self._client, to, content=body, headers=headers)
        return ""


def signature(secret: str, at_s: int, body: bytes) -> str:
    return hmac.new(secret.encode(), f"{at_s}.".encode() + body, sha256).hexdigest()


class Telegram:
    """One message a subject: sent first, and then edited."""

    takes_all = False
    gathers = False

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url.rstrip("/")

    async def deliver(self, letter: Letter, to: str, secret: str, reference: str, at_s: int) -> str:
        message: dict[str, Any] = {
            "chat_id": to,
            "text": _cut(f"{letter.content.title}\n\n{letter.content.text}", _TELEGRAM_MAX),
        }
        message["link_preview_options"] = {"is_disabled": True}
        method = "sendMessage"
        if reference:
            method, message["message_id"] = "editMessageText", int(reference)
        try:
            answer = await _post(self._client, f"{self._url}/bot{secret}/{method}", json=message)
        except NotDelivered as error:
            if reference and "message is not modified" in str(error):
                return reference  # a repeat
            raise
        result = answer.get("result")
        if not isinstance(result, dict) or "message_id" not in result:
            raise NotDelivered("Telegram: expected the id of a message in the answer, found none")
        return str(result["message_id"])


class Slack:
    """One message a subject: posted first, and then updated. Slack answers 200 also to what it refuses."""

    takes_all = False
    gathers = False

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url.rstrip("/")

    async def deliver(self, letter: Letter, to: str, secret: str, reference: str, at_s: int) -> str:
        text = _cut(f"*{_escaped(letter.content.title)}*\n{_escaped(letter.content.text)}", _SLACK_MAX)
        message = {"channel": to, "text": text}
        method = "chat.postMessage"
        if reference:
            # The id of the channel, which an update needs, came with the first message.
            channel, _, ts = reference.partition(" ")
            method, message = "chat.update", {"channel": channel, "ts": ts, "text": text}
        headers = {"Authorization": f"Bearer {secret}"}
        answer = await _post(self._client, f"{self._url}/{method}", json=message, headers=headers)
        if not answer.get("ok"):
            error = str(answer.get("error", "no reason"))
            raise NotDelivered(
                f"Slack: {error}", is_final=error not in ("ratelimited", "internal_error", "fatal_error")
            )
        return f"{answer.get('channel', to)} {answer.get('ts', '')}"


class Email:
    """One message an update, in one thread a subject (`References`)."""

    takes_all = False
    gathers = True

    def __init__(self, mail: Mail, password: str, timeout_s: float) -> None:
        self._mail = mail
        self._password = password
        self._timeout_s = timeout_s

    async def deliver(self, letter: Letter, to: str, secret: str, reference: str, at_s: int) -> str:
        domain = self._mail.sender.rpartition("@")[2]
        message = EmailMessage()
        message["From"] = self._mail.sender
        message["To"] = to
        message["Subject"] = letter.content.title if not reference else f"Re: {letter.content.title}"
        message["Date"] = formatdate(at_s)
        # The same letter has the same id, by which mail servers and readers know a repeat.
        message["Message-ID"] = f"<{letter.id}@{domain}>"
        message["Auto-Submitted"] = "auto-generated"
        if reference:
            message["In-Reply-To"] = message["References"] = reference
        message.set_content(letter.content.text)
        try:
            await asyncio.to_thread(self._send, message)
        except smtplib.SMTPResponseException as error:
            is_final = error.smtp_code >= _SERVER_ERRORS
            raise NotDelivered(f"SMTP {error.smtp_code}: {error.smtp_error!r}", is_final=is_final) from error
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            raise NotDelivered(f"SMTP: {error.recipients}", is_final=min(codes) >= _SERVER_ERRORS) from error
        except (OSError, smtplib.SMTPException) as error:
            raise NotDelivered(f"SMTP: {error}") from error
        return reference or message["Message-ID"]

    def _send(self, message: EmailMessage) -> None:
        with smtplib.SMTP(self._mail.host, self._mail.port, timeout=self._timeout_s) as smtp:
            if self._mail.starttls:
                smtp.starttls()
            if self._mail.user:
                smtp.login(self._mail.user, self._password)
            smtp.send_message(message)


async def _post(client: httpx.AsyncClient, url: str, **content: Any) -> dict[str, Any]:
    """Post, and return the answer's JSON, or nothing. A URL may hold a secret, so that no error tells it."""
    try:
        response = await client.post(url, **content)
    except httpx.HTTPError as error:
        raise NotDelivered(f"{type(error).__name__}: no answer") from error
    try:
        answer = response.json()
    except ValueError:
        answer = {}
    answer = answer if isinstance(answer, dict) else {}
    if response.is_success:
        return answer
    retry_after_s = _retry_after_s(response, answer)
    why = f"HTTP {response.status_code} {answer.get('description', '')}".strip()
    raise NotDelivered(why, is_final=response.status_code in _FINAL, retry_after_s=retry_after_s)


def _retry_after_s(response: httpx.Response, answer: dict[str, Any]) -> float | None:
    """Telegram says it in the answer, others in a header."""
    parameters = answer.get("parameters")
    told = parameters.get("retry_after") if isinstance(parameters, dict) else response.headers.get("Retry-After")
    try:
        return None if told is None else min(max(float(told), 0.0), 86_400.0)
    except (TypeError, ValueError):
        return None


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _escaped(text: str) -> str:
    """As Slack wants it: https://docs.slack.dev/messaging/formatting-message-text"""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
