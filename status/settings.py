"""The settings of the status service, from a TOML file. What is not named keeps its default; units are in the names."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from status.announce.subscribers import Subscriber


class SettingsInvalid(ValueError):
    """Settings that cannot be taken: what was expected and what was found."""

    code = "STATUS_SETTINGS_INVALID"


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Exchange(_Section, frozen=True):
    """The exchange that is watched."""

    addresses: tuple[str, ...] = ("127.0.0.1:7700",)
    """host:port of every gateway, as clients know them. Each is watched by itself, so name all of them."""
    probe_key_file: str = "probe.key"
    """The API key of the account that probes, in the data directory or an absolute path; `evenkeel-status prepare`
    writes it. It may read and trade, and no more."""
    operator_key_file: str = ""
    """An operator's key for the supervisor's feed, which only reads (GetStatus, ListEvents, GetMaintenance). Empty:
    causes stay unknown, and a planned restart is told from an outage by the schedule alone."""


class Probing(_Section, frozen=True):
    """How the exchange is looked at."""

    interval_ms: Annotated[int, Meta(ge=200, le=10_000)] = 1_000
    """Between two looks at a market through a gateway. More than 1,500 cannot tell the truth within 5 s."""
    failing_interval_ms: Annotated[int, Meta(ge=100, le=10_000)] = 500
    """The same where the last look failed: sooner, so that the end of an outage is seen soon."""
    timeout_ms: Annotated[int, Meta(ge=100, le=5_000)] = 1_000
    """How long an answer may take; the SDK's own default, so that what clients give up counts as failed."""
    order_quantity_lots: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    """Of a probing order, on top of the least quantity of its market."""
    lateness_max_ms: Annotated[int, Meta(ge=10, le=5_000)] = 250
    """When this service itself ran later than this during a look that failed, the look says nothing: neither up nor
    down. A quarter of the timeout, so that the rest was the exchange's."""


class Levels(_Section, frozen=True):
    """When a component is what it is said to be; docs/status.md has the rules in words."""

    failures_to_fail: Annotated[int, Meta(ge=1, le=10)] = 2
    """Looks in a row that must fail. One alone may be a lost packet."""
    successes_to_recover: Annotated[int, Meta(ge=1, le=10)] = 2
    """Looks in a row that must succeed before it counts as back."""
    window_s: Annotated[int, Meta(ge=5, le=600)] = 60
    """Of the shares and delays below."""
    degraded_failed_percent: Annotated[float, Meta(ge=0.1, le=100)] = 10.0
    """Degraded when more of the window's looks failed, and at least `degraded_failures`."""
    degraded_failures: Annotated[int, Meta(ge=1, le=1_000)] = 4
    """The least number that counts: the two of a blip must not make a whole minute degraded."""
    degraded_latency_ms: Annotated[int, Meta(ge=1, le=60_000)] = 500
    """Degraded when half of the window's looks took longer: half of what clients wait."""
    stale_ms: Annotated[int, Meta(ge=100, le=60_000)] = 2_500
    """Market data that does not show an order of this service so long after it was acknowledged has failed."""


class IncidentRules(_Section, frozen=True):
    """How incidents open, gather and close."""

    blip_ms: Annotated[int, Meta(ge=0, le=60_000)] = 4_000
    """What is over sooner, counted from the first look that failed, is recorded and not announced. Looks are a second
    apart, so 4,000 announces what lasted 4 to 5 s, and the first announcement is out within about 5 s."""
    group_ms: Annotated[int, Meta(ge=0, le=600_000)] = 30_000
    """Components that fail within this time of each other belong to one incident."""
    resolve_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 30_000
    """All components must have been operational for so long. Sooner resolves what comes again at once."""
    relapse_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 600_000
    """A component that fails again so soon after its incident was resolved opens that one again."""


class HistoryRules(_Section, frozen=True):
    """What is kept."""

    days_kept: Annotated[int, Meta(ge=90, le=3_650)] = 400
    """Of the state of components; the page shows 90."""
    incidents_kept_days: Annotated[int, Meta(ge=90, le=36_500)] = 1_825
    """Of incidents and maintenance that are over."""
    latency_bucket_s: Annotated[int, Meta(ge=10, le=3_600)] = 300
    """Width of a point in the charts of delays."""
    latency_kept_days: Annotated[int, Meta(ge=1, le=400)] = 90
    """How long these points are kept."""


class Serving(_Section, frozen=True):
    """Where the service is reached, and how it names itself."""

    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Meta(ge=0, le=65_535)] = 8090
    """Public: page and Status API; 0 takes a free one."""
    grpc_host: str = "127.0.0.1"
    grpc_port: Annotated[int, Meta(ge=0, le=65_535)] = 8091
    """StatusService: reading is public, operator actions need an operator's key; 0 takes a free one."""
    snapshot_dir: str = "snapshot"
    """Where the page and the API are written as files with every change, for another web server to serve; in the data
    directory or an absolute path. Empty: nowhere."""
    page_name: str = "Evenkeel"
    page_url: str = "http://127.0.0.1:8090"
    """As the public reaches it; links in announcements and feeds begin with it."""


class Settings(_Section, frozen=True):
    data_dir: str = "evenkeel-status"
    """Private: history, keys, outbox. A relative path starts from the settings file."""
    exchange: Exchange = Exchange()
    probing: Probing = Probing()
    levels: Levels = Levels()
    incidents: IncidentRules = IncidentRules()
    history: HistoryRules = HistoryRules()
    serving: Serving = Serving()
    subscribers: tuple[Subscriber, ...] = ()
    """Who is told: `[[subscribers]]` with `channel = "telegram"`, `"slack"`, `"webhook"` or `"mail"`."""

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir)

    def key_path(self, name: str) -> Path:
        """Where a key file is: as it is named, a relative one in the data directory."""
        return self.data_path / name


def parse_settings(toml: str, base: Path = Path()) -> Settings:
    """Read settings; relative data directories start from `base`. Raises `SettingsInvalid`."""
    try:
        settings = msgspec.convert(tomllib.loads(toml), Settings)
    except tomllib.TOMLDecodeError as error:
        raise SettingsInvalid(f"expected TOML, found what is none: {error}") from error
    except msgspec.ValidationError as error:
        raise SettingsInvalid(f"settings of the status service: {error}; docs/status.md lists all of them") from error
    if not settings.exchange.addresses:
        raise SettingsInvalid("exchange.addresses: expected host:port of at least one gateway, found none")
    names = [subscriber.name for subscriber in settings.subscribers]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsInvalid(f"subscribers: expected a name of its own for each, found {', '.join(twice)} twice")
    return msgspec.structs.replace(settings, data_dir=str(base / settings.data_dir))


def read_settings(path: Path | None) -> Settings:
    """Read a settings file; without one, the defaults. Raises `SettingsInvalid`."""
    if path is None:
        return parse_settings("")
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"expected a readable settings file at {path}: {error}") from error
    return parse_settings(text, path.parent)
