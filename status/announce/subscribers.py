"""Who is told what, and how: a part of the settings."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from status.model import Impact, Incident, Maintenance

_RANK = {Impact.NONE: 0, Impact.MINOR: 1, Impact.MAJOR: 2, Impact.CRITICAL: 3, Impact.MAINTENANCE: 0}


class Subscriber(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[announce.subscribers]]`. Secrets are in files, in the data directory or at absolute paths."""

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    """Names it in the outbox: a changed one is another subscriber."""
    channel: Literal["telegram", "slack", "webhook", "email"]
    to: str
    """The chat of Telegram (`@channel` or a number), the channel of Slack, the URL of a webhook, the mail address."""
    secret_file: str = ""
    """The token of a bot (Telegram, Slack), or what webhooks are signed with."""
    components: tuple[str, ...] = ()
    """Ids, or beginnings of ids such as `trading-`; none: all."""
    least_impact: Literal["minor", "major", "critical"] = "minor"
    maintenance: bool = True
    """Whether maintenance is told, too."""

    def wants(self, subject: Incident | Maintenance) -> bool:
        concerned = not self.components or not subject.components
        concerned = concerned or any(name.startswith(self.components) for name in subject.components)
        if isinstance(subject, Maintenance):
            return concerned and self.maintenance
        return concerned and _RANK[subject.impact] >= _RANK[Impact(self.least_impact)]


class Mail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The SMTP server that takes e-mail."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65_535)] = 25
    sender: str = "status@localhost"
    """What is in `From`; its domain is in the Message-IDs."""
    user: str = ""
    """Empty: no login."""
    password_file: str = ""
    starttls: bool = False
    """Whether the connection must be encrypted. A login without it is refused."""


class Announce(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How announcements go out."""

    subscribers: tuple[Subscriber, ...] = ()
    mail: Mail = Mail()
    telegram_url: str = "https://api.telegram.org"
    """Of the Bot API; another one for a server of one's own."""
    slack_url: str = "https://slack.com/api"
    """Of the Web API; another one for what is compatible with it."""
    templates_dir: str = ""
    """Files here take the place of those that come with the service: `incident.txt`, `maintenance.txt`."""
    timeout_ms: Annotated[int, Meta(ge=100, le=60_000)] = 5_000
    """How long a server may take to accept a message."""
    gather_ms: Annotated[int, Meta(ge=0, le=600_000)] = 20_000
    """After an e-mail the next one of the same subject waits so long, so that the stages of a recovery come in one.
    Chats edit one message and webhooks are for programs: these do not wait."""
    backoff_ms: Annotated[int, Meta(ge=10, le=60_000)] = 1_000
    """Before the second attempt, at most; doubled each time, of which a random share is waited (full jitter)."""
    backoff_max_ms: Annotated[int, Meta(ge=1_000, le=86_400_000)] = 600_000
    """The longest wait between two attempts."""
    attempts_max: Annotated[int, Meta(ge=1, le=100)] = 12
    """Then it is a dead letter, which an operator can have sent again. Twelve are about an hour."""
    sent_kept_days: Annotated[int, Meta(ge=7, le=3_650)] = 90
    """How long it is remembered what was sent."""
