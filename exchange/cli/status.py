"""`exchange status …`: what runs where, and what the public is told of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from google.protobuf.json_format import MessageToDict

from exchange.cli.connection import DATA_DEFAULT, Address, Data, Json, Key, connect, find_key
from exchange.cli.errors import CommandFailed
from exchange.cli.output import console, show
from exchange.v1 import status_pb2, status_pb2_grpc

app = typer.Typer(
    help="What runs where, in which state (needs an operator's key), and what the status service tells the public.\n\n"
    "    exchange status\n\n"
    "    exchange status show\n\n"
    '    exchange status incident update ID "We move the market to another machine."\n\n'
    '    exchange status maintenance schedule "New version" --from 2026-12-01T08:00Z --until 2026-12-01T08:30Z '
    '--body "Short pauses are possible."\n\n'
    '    exchange status notice put "New fees from Monday on."\n\n'
    "What the public is told begins with what was measured: nobody sets a component to operational by hand.",
    invoke_without_command=True,
)
incident = typer.Typer(help="Words for incidents, corrections and post-mortems.", no_args_is_help=True)
maintenance = typer.Typer(help="Announce maintenance.", no_args_is_help=True)
notice = typer.Typer(help="Banners.", no_args_is_help=True)
letters = typer.Typer(help="Announcements that could not be delivered.", no_args_is_help=True)
app.add_typer(incident, name="incident")
app.add_typer(maintenance, name="maintenance")
app.add_typer(notice, name="notice")
app.add_typer(letters, name="letters")

_TIMEOUT_S = 10.0
Service = Annotated[
    str,
    typer.Option("--service", envvar="EVENKEEL_STATUS_ADDRESS", help="host:port of the status service's gRPC."),
]
SERVICE_DEFAULT = "127.0.0.1:8091"
Body = Annotated[str, typer.Argument(help="What the public is told.")]
Id = Annotated[str, typer.Argument(help="As `exchange status show` has it.")]
When = Annotated[str, typer.Option(help="A time with its zone, such as 2026-12-01T08:00Z.")]
TextBody = Annotated[str, typer.Option("--body", help="What the public is told.")]


@app.callback()
def status(
    context: typer.Context, address: Address = "", key: Key = "", data: Data = DATA_DEFAULT, json: Json = False
) -> None:
    """Without a command: what runs where, in which state (needs an operator's key)."""
    if context.invoked_subcommand is not None:
        return
    with connect(address, key, data) as client:
        columns = ("name", "state", "role", "stage", "node", "pid", "epoch", "sequence", "open_orders", "restarts")
        found = client.status()
        show((*found.components, *found.supervisors), (*columns, "address", "detail"), json)


@app.command("show")
def show_board(service: Service = SERVICE_DEFAULT, json: Json = False) -> None:
    """Show what the public is told: components, incidents, maintenance, notices."""
    with _stub(service) as stub:
        board = stub.GetBoard(status_pb2.GetBoardRequest(), timeout=_TIMEOUT_S).board
    if json:
        print(dumps(MessageToDict(board, preserving_proto_field_name=True), indent=2))
        return
    show(board.components, ("id", "status", "trading_mode", "latency_p50_ms", "latency_p99_ms", "reason"), False)
    over = ("completed", "canceled")
    for found in board.incidents:
        if not found.resolve_time_ns:
            _show_updates(f"incident {found.id} {found.name} ({found.status}, {found.impact})", found.updates)
    for planned in board.maintenances:
        if planned.status not in over:
            _show_updates(f"maintenance {planned.id} {planned.name} ({planned.status})", planned.updates)
    for banner in board.notices:
        console.print(f"notice {banner.id} {banner.body}", highlight=False, markup=False)


@incident.command("update")
def add_words(id: Id, body: Body, service: Service = SERVICE_DEFAULT, key: Key = "", data: Data = DATA_DEFAULT) -> None:
    """Add words to an incident or a maintenance."""
    request = status_pb2.AddIncidentUpdateRequest(id=id, body=body)
    _act(service, key, data, lambda stub, **call: stub.AddIncidentUpdate(request, **call))


@incident.command("correct")
def correct(
    update: Annotated[str, typer.Argument(help="Of an update, as `exchange status show` has it.")],
    body: Body,
    service: Service = SERVICE_DEFAULT,
    key: Key = "",
    data: Data = DATA_DEFAULT,
) -> None:
    """Correct an update. What it said first stays visible."""
    request = status_pb2.CorrectUpdateRequest(update_id=update, body=body)
    _act(service, key, data, lambda stub, **call: stub.CorrectUpdate(request, **call))


@incident.command("draft")
def draft(id: Id, service: Service = SERVICE_DEFAULT, key: Key = "", data: Data = DATA_DEFAULT) -> None:
    """Print the draft of a post-mortem, made from the event log: Markdown, with marks where a person has to write."""
    request = status_pb2.GetPostmortemDraftRequest(incident_id=id)
    print(_act(service, key, data, lambda stub, **call: stub.GetPostmortemDraft(request, **call)).text)


@incident.command("publish")
def publish(
    id: Id,
    file: Annotated[Path, typer.Argument(help="Markdown; - for standard input.")],
    service: Service = SERVICE_DEFAULT,
    key: Key = "",
    data: Data = DATA_DEFAULT,
) -> None:
    """Publish the post-mortem of an incident that is resolved."""
    text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    request = status_pb2.PublishPostmortemRequest(incident_id=id, text=text)
    _act(service, key, data, lambda stub, **call: stub.PublishPostmortem(request, **call))


@maintenance.command("schedule")
def schedule(
    name: Annotated[str, typer.Argument(help="What it is called.")],
    begin: Annotated[str, typer.Option("--from", help="A time with its zone, such as 2026-12-01T08:00Z.")],
    until: When,
    body: TextBody,
    component: Annotated[list[str] | None, typer.Option(help="Ids of components; without: all.")] = None,
    service: Service = SERVICE_DEFAULT,
    key: Key = "",
    data: Data = DATA_DEFAULT,
) -> None:
    """Announce maintenance. `exchange maintenance …` starts and ends it, or else its time does."""
    request = status_pb2.ScheduleMaintenanceRequest(
        name=name,
        components=component or [],
        from_time_ns=_time_ns(begin, "--from"),
        until_time_ns=_time_ns(until, "--until"),
        body=body,
    )
    print(_act(service, key, data, lambda stub, **call: stub.ScheduleMaintenance(request, **call)).maintenance.id)


@maintenance.command("reschedule")
def reschedule(
    id: Id,
    begin: Annotated[str, typer.Option("--from", help="A time with its zone, such as 2026-12-01T08:00Z.")],
    until: When,
    body: TextBody,
    service: Service = SERVICE_DEFAULT,
    key: Key = "",
    data: Data = DATA_DEFAULT,
) -> None:
    """Move maintenance that has not begun to another time."""
    request = status_pb2.RescheduleMaintenanceRequest(
        id=id, from_time_ns=_time_ns(begin, "--from"), until_time_ns=_time_ns(until, "--until"), body=body
    )
    _act(service, key, data, lambda stub, **call: stub.RescheduleMaintenance(request, **call))


@maintenance.command("cancel")
def cancel(
    id: Id, body: TextBody, service: Service = SERVICE_DEFAULT, key: Key = "", data: Data = DATA_DEFAULT
) -> None:
    """Tell that announced maintenance will not be."""
    request = status_pb2.CancelMaintenanceRequest(id=id, body=body)
    _act(service, key, data, lambda stub, **call: stub.CancelMaintenance(request, **call))


@notice.command("put")
def put_notice(body: Body, service: Service = SERVICE_DEFAULT, key: Key = "", data: Data = DATA_DEFAULT) -> None:
    """Put up a banner; prints its id."""
    request = status_pb2.PutNoticeRequest(body=body)
    print(_act(service, key, data, lambda stub, **call: stub.PutNotice(request, **call)).notice.id)


@notice.command("remove")
def remove_notice(id: Id, service: Service = SERVICE_DEFAULT, key: Key = "", data: Data = DATA_DEFAULT) -> None:
    """Take a banner down."""
    request = status_pb2.RemoveNoticeRequest(id=id)
    _act(service, key, data, lambda stub, **call: stub.RemoveNotice(request, **call))


@letters.command("list")
def list_letters(
    service: Service = SERVICE_DEFAULT, key: Key = "", data: Data = DATA_DEFAULT, json: Json = False
) -> None:
    """List announcements that could not be delivered, and why."""
    request = status_pb2.ListDeadLettersRequest()
    found = _act(service, key, data, lambda stub, **call: stub.ListDeadLetters(request, **call)).dead_letters
    if json:
        print(dumps([MessageToDict(letter, preserving_proto_field_name=True) for letter in found], indent=2))
        return
    show(found, ("id", "subscriber", "subject", "time_ns", "attempts", "error"), False)


@letters.command("resend")
def resend_letters(
    ids: Annotated[list[str] | None, typer.Argument(help="Which; all if none is named.")] = None,
    service: Service = SERVICE_DEFAULT,
    key: Key = "",
    data: Data = DATA_DEFAULT,
) -> None:
    """Send them again."""
    request = status_pb2.ResendDeadLettersRequest(ids=ids or [])
    print(_act(service, key, data, lambda stub, **call: stub.ResendDeadLetters(request, **call)).resent)


# Generated stubs have types of their own for each call; what they share is that they take a request and metadata.
def _act(service: str, key: str, data: Path, call: Callable[..., Any]) -> Any:
    """Call as an operator."""
    found = find_key(key, data)
    metadata = (("authorization", f"Bearer {found}"),) if found else ()
    with _stub(service) as stub:
        return call(stub, metadata=metadata, timeout=_TIMEOUT_S)


@contextmanager
def _stub(service: str) -> Iterator[status_pb2_grpc.StatusServiceStub]:
    with grpc.insecure_channel(service) as channel:
        try:
            yield status_pb2_grpc.StatusServiceStub(channel)
        except grpc.RpcError as error:
            call: Any = error  # whatever a stub raises is a Call as well
            if call.code() is grpc.StatusCode.UNAVAILABLE:
                message = f"expected a status service at {service}, found none: `evenkeel-status serve` starts one"
                raise CommandFailed("STATUS_UNAVAILABLE", message) from error
            raise CommandFailed(call.code().name, call.details() or "no details") from error


def _show_updates(title: str, updates: Any) -> None:
    console.print(title, highlight=False, markup=False)
    for update in reversed(updates):
        at = datetime.fromtimestamp(update.time_ns / 1e9, UTC).strftime("%H:%M:%S")
        corrected = f" (corrected; it was: {update.body_before})" if update.body_before else ""
        line = f"  {at} {update.status} {update.id} {update.body}{corrected}"
        console.print(line, highlight=False, markup=False)


def _time_ns(text: str, option: str) -> int:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise typer.BadParameter(f"{option}: expected a time with its zone, such as 2026-12-01T08:00Z, was {text!r}")
    return int(when.timestamp()) * 1_000_000_000
