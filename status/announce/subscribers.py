"""Who is told, where, and of what."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Annotated

import msgspec
from msgspec import Meta

from status.model import Impact

_SEVERITY = (Impact.NONE, Impact.MAINTENANCE, Impact.MINOR, Impact.MAJOR, Impact.CRITICAL)
_Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)]
_Url = Annotated[str, Meta(pattern=r"^https?://", max_length=2_000)]


class _Subscriber(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="channel"):
    name: _Name
    """Stable: what was sent is remembered by it."""
    components: tuple[str, ...] = ("*",)
    """Ids of components, with `*`: `trading-*`. One that matches is enough."""
    least_impact: Impact = Impact.MINOR
    """`minor`, `major` or `critical`; maintenance is told unless `maintenance` is off."""
    maintenance: bool = True

    def wants(self, impact: Impact, components: tuple[str, ...]) -> bool:
        """Whether something of this impact on these components is to be told."""
        if impact is Impact.MAINTENANCE:
            severe = self.maintenance
        else:
            severe = _SEVERITY.index(impact) >= _SEVERITY.index(self.least_impact)
        return severe and any(fnmatch(component, wanted) for component in components for wanted in self.components)


class Telegram(_Subscriber, frozen=True, tag="telegram"):
    """A channel or group, by a bot that may post there. One message an incident, which is edited."""

    chat_id: str
    """`@channel`, or the number of a chat."""
    token_file: str
    """The bot's token, in the data directory or an absolute path."""
    base_url: _Url = "https://api.telegram.org"


class Slack(_Subscriber, frozen=True, tag="slack"):
    """Slack, or what speaks its Web API. One message an incident, which is edited."""

    room: str
    """The id of a channel."""
    token_file: str
    base_url: _Url = "https://slack.com/api"


class Webhook(_Subscriber, frozen=True, tag="webhook"):
    """A POST of JSON for each change, signed. The same delivery has the same id, however often it is tried."""

    url: _Url
    secret_file: str


class Mail(_Subscriber, frozen=True, tag="mail"):
    """E-mail by SMTP: the first message of an incident, and answers to it."""

    to: Annotated[str, Meta(pattern=r"^[^@\s]+@[^@\s]+$")]
    sender: Annotated[str, Meta(pattern=r"^[^@\s]+@[^@\s]+$")]
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65_535)] = 25
    starttls: bool = False
    user: str = ""
    password_file: str = ""


Subscriber = Telegram | Slack | Webhook | Mail
