"""Each channel against a server of its own that speaks the protocol."""

from __future__ import annotations

import email
import email.policy
import json

import httpx
import pytest
from msgspec.structs import replace

from status.announce.chats import TELEGRAM_TEXT_MAX, SlackChannel, TelegramChannel, telegram_text
from status.announce.delivery import Channel, Delivery, NotDelivered, Refused
from status.announce.mail import MailChannel
from status.announce.messages import Message, messages_of
from status.announce.subscribers import Mail, Slack, Telegram, Webhook
from status.announce.webhooks import WebhookChannel, signature
from status.model import IncidentStatus, Maintenance, MaintenanceStatus, Update
from status.web.app import create_app
from tests.status.announce.boards import BEGAN_NS, KNOWN, OPENED, RESOLVED, SECOND_NS, board, incident, update
from tests.status.announce.servers import MailServer, SlackServer, TelegramServer, WebhookServer
from tests.status.web.scenes import FakePublisher


def message(*updates: object, **of: object) -> Message:
    (only,) = messages_of(board(incident(*(updates or (OPENED,)), **of)))  # type: ignore[arg-type]
    return only


async def say(channel: Channel, *messages: Message) -> str:
    """Say messages of one subject, one after the other, as the announcer does."""
    reference = ""
    for one in messages:
        reference = await channel.deliver(Delivery(f"me.{one.subject}.{one.revision}", one, reference))
    return reference


def test_what_is_said_has_the_markets_the_times_and_every_update() -> None:
    said = message(OPENED, KNOWN)
    assert said.title == "Orders fail"
    assert said.text.splitlines() == [
        "Markets: BTC-USDT",
        "Affected: Trading BTC-USDT",
        "Since: 2026-11-25 20:53:20 UTC",
        "",
        "2026-11-25 20:53:22 UTC: identified. A process has ended; another takes over.",
        "2026-11-25 20:53:21 UTC: investigating. Orders in BTC-USDT are refused.",
    ]
    assert said.latest == "Identified: A process has ended; another takes over."
    assert said.url == "https://status.example/incidents/abc123"


async def test_what_is_told_links_to_a_page_that_is_there() -> None:
    update_ = Update(id="m1", at_ns=BEGAN_NS, status=MaintenanceStatus.SCHEDULED, body="Short pauses.")
    planned = Maintenance(
        id="mnt1",
        name="New version",
        status=MaintenanceStatus.SCHEDULED,
        components=("trading-btc-usdt",),
        scheduled_for_ns=BEGAN_NS,
        scheduled_until_ns=BEGAN_NS + SECOND_NS,
        created_ns=BEGAN_NS,
        updated_ns=BEGAN_NS,
        updates=(update_,),
    )
    both = replace(board(incident(OPENED)), maintenances=(planned,), page_url="")
    transport = httpx.ASGITransport(create_app(FakePublisher(both)))
    async with httpx.AsyncClient(transport=transport, base_url="http://status.example") as client:
        answers = [await client.get(said.url) for said in messages_of(both)]
    assert [answer.status_code for answer in answers] == [200, 200]


# ---------------------------------------------------------------- Telegram


def telegram(address: str, token: str = "42:secret") -> TelegramChannel:
    subscriber = Telegram(name="public", chat_id="@evenkeel", token_file="t", base_url=address)
    return TelegramChannel(subscriber, token)


async def test_telegram_has_one_message_an_incident_which_is_edited() -> None:
    server = TelegramServer()
    async with server.running() as address:
        channel = telegram(address)
        await say(channel, message(OPENED), message(OPENED, KNOWN), message(OPENED, KNOWN, RESOLVED))
        await channel.close()
    ((first, second, last),) = server.messages.values()
    assert first.startswith("🟠 <b>Orders fail</b>")
    assert "identified" in second
    assert last.startswith("✅")
    assert "Until: 2026-11-25 20:53:29 UTC" in last


async def test_an_edit_that_was_made_already_is_delivered() -> None:
    server = TelegramServer()
    async with server.running() as address:
        channel = telegram(address)
        reference = await say(channel, message(OPENED))
        assert await channel.deliver(Delivery("me", message(OPENED), reference)) == reference
        await channel.close()
    assert list(server.messages.values()) == [[telegram_text(message(OPENED))]]


async def test_telegram_says_when_it_wants_to_be_asked_again() -> None:
    flood = {"status": 429, "ok": False, "description": "Too Many Requests", "parameters": {"retry_after": 7}}
    server = TelegramServer(refuse=[flood])
    async with server.running() as address:
        channel = telegram(address)
        with pytest.raises(NotDelivered) as refused:
            await say(channel, message())
        await channel.close()
    assert refused.value.retry_after_s == 7


async def test_a_wrong_token_is_refused_and_not_told() -> None:
    async with TelegramServer().running() as address:
        channel = telegram(address, "42:wrong")
        with pytest.raises(Refused, match="Telegram: Unauthorized"):
            await say(channel, message())
        await channel.close()


async def test_where_nobody_answers_the_error_has_no_token() -> None:
    channel = telegram("http://127.0.0.1:1")
    with pytest.raises(NotDelivered) as refused:
        await say(channel, message())
    assert "secret" not in str(refused.value)
    await channel.close()


def test_hostile_words_are_text_and_long_ones_are_cut() -> None:
    hostile = message(update(1, IncidentStatus.INVESTIGATING, "<script>&" * 2_000), name="<b>& more")
    text = telegram_text(hostile)
    assert "<script>" not in text
    assert "&lt;b&gt;&amp; more" in text
    assert len(text) <= TELEGRAM_TEXT_MAX


# ---------------------------------------------------------------- Slack


async def test_slack_has_one_message_an_incident_which_is_edited() -> None:
    server = SlackServer()
    async with server.running() as address:
        channel = SlackChannel(Slack(name="ops", room="C1", token_file="t", base_url=address), "xoxb-secret")
        await say(channel, message(OPENED), message(OPENED, RESOLVED))
        await channel.close()
    ((first, last),) = server.messages.values()
    assert first.startswith("🟠 *Orders fail*")
    assert last.endswith("<https://status.example/incidents/abc123|Status page>")


async def test_slack_that_does_not_know_the_token_refuses() -> None:
    async with SlackServer().running() as address:
        channel = SlackChannel(Slack(name="ops", room="C1", token_file="t", base_url=address), "wrong")
        with pytest.raises(Refused, match="invalid_auth"):
            await say(channel, message())
        await channel.close()


# ---------------------------------------------------------------- webhooks


def webhook(address: str) -> WebhookChannel:
    return WebhookChannel(Webhook(name="hook", url=address, secret_file="s"), "shared", clock_s=lambda: 1_795_640_001.5)


async def test_a_webhook_is_signed_and_has_an_id_that_stays() -> None:
    server = WebhookServer()
    async with server.running() as address:
        channel = webhook(address)
        await say(channel, message())
        await say(channel, message())
        await channel.close()
    assert server.attempts == 2
    ((delivery, (headers, body)),) = server.taken.items()
    assert headers["x-evenkeel-signature"] == f"v1={signature('shared', headers['x-evenkeel-timestamp'], body)}"
    assert signature("other", headers["x-evenkeel-timestamp"], body) not in headers["x-evenkeel-signature"]
    content = json.loads(body)
    assert content["delivery"] == delivery
    assert (content["status"], content["impact"], content["is_over"]) == ("investigating", "major", False)


@pytest.mark.parametrize(
    ("status", "error"), [(503, NotDelivered), (429, NotDelivered), (410, Refused), (302, Refused)]
)
async def test_what_a_receiver_says_decides_whether_it_is_asked_again(status: int, error: type[Exception]) -> None:
    server = WebhookServer(statuses=[status])
    async with server.running() as address:
        channel = webhook(address)
        with pytest.raises(error, match=str(status)):
            await say(channel, message())
        await channel.close()


# ---------------------------------------------------------------- mail


def mail(port: int) -> MailChannel:
    return MailChannel(Mail(name="mail", to="reader@example.org", sender="status@example.com", port=port), "")


async def test_mails_of_one_incident_are_one_thread() -> None:
    server = MailServer()
    async with server.running() as port:
        await say(mail(port), message(OPENED), message(OPENED, KNOWN), message(OPENED, KNOWN, RESOLVED))
    first, second, last = (email.message_from_bytes(raw, policy=email.policy.default) for raw in server.mails)
    assert first["Subject"] == "Orders fail"
    assert second["Subject"] == last["Subject"] == "Re: Orders fail"
    assert second["In-Reply-To"] == last["References"] == first["Message-ID"]
    assert len({m["Message-ID"] for m in (first, second, last)}) == 3
    assert "Everything works again." in last.get_content()


async def test_a_title_with_a_line_break_makes_no_header_of_its_own() -> None:
    server = MailServer()
    async with server.running() as port:
        await say(mail(port), message(name="Orders\r\nBcc: everybody@example.org"))
    (raw,) = server.mails
    sent = email.message_from_bytes(raw, policy=email.policy.default)
    assert sent["Bcc"] is None
    assert sent["Subject"] == "Orders Bcc: everybody@example.org"


@pytest.mark.parametrize(("said", "error"), [("451 later", NotDelivered), ("554 never", Refused)])
async def test_a_mail_server_says_whether_it_is_asked_again(said: str, error: type[Exception]) -> None:
    server = MailServer(codes=[said])
    async with server.running() as port:
        with pytest.raises(error, match=said):
            await say(mail(port), message())


async def test_a_mail_server_that_is_away_is_asked_again() -> None:
    with pytest.raises(NotDelivered, match="mail"):
        await say(mail(1), message())
