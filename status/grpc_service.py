"""StatusService: reading for everybody, and what operators tell the public."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from exchange.v1 import status_pb2 as pb
from exchange.v1 import status_pb2_grpc
from status.announce.announcer import Announcer
from status.incidents import IncidentUnknown
from status.maintenance import MaintenanceUnknown, WindowInvalid
from status.messages import board_message, maintenance_message, notice_message
from status.operators import NotAnOperator, Operators
from status.postmortem import LoggedEvent, draft
from status.publisher import NoticeUnknown, Publisher

_log = structlog.get_logger()

_DOMAIN = "evenkeel"
_BODY_MAX = 10_000
_TEXT_MAX = 200_000
_NAME_MAX = 200
_DAY_NS = 86_400_000_000_000


class PortTaken(RuntimeError):
    """Nobody can be served there."""

    code = "PORT_TAKEN"


class TextInvalid(ValueError):
    """Words that are missing or too many."""

    code = "TEXT_INVALID"


_CODES: dict[type[Exception], grpc.StatusCode] = {
    NotAnOperator: grpc.StatusCode.UNAUTHENTICATED,
    IncidentUnknown: grpc.StatusCode.NOT_FOUND,
    MaintenanceUnknown: grpc.StatusCode.NOT_FOUND,
    NoticeUnknown: grpc.StatusCode.NOT_FOUND,
    WindowInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    TextInvalid: grpc.StatusCode.INVALID_ARGUMENT,
}


class StatusServicer(status_pb2_grpc.StatusServiceServicer):
    def __init__(self, publisher: Publisher, announcer: Announcer | None, operators: Operators) -> None:
        self._publisher = publisher
        self._announcer = announcer
        self._operators = operators

    # ---------------------------------------------------------------- for everybody

    async def GetBoard(self, request: pb.GetBoardRequest, context: Any) -> pb.GetBoardResponse:
        return pb.GetBoardResponse(board=board_message(self._publisher.board()))

    async def WatchStatus(self, request: pb.WatchStatusRequest, context: Any) -> AsyncIterator[pb.WatchStatusResponse]:
        async for board in self._publisher.changes():
            yield pb.WatchStatusResponse(board=board_message(board))

    # ---------------------------------------------------------------- for operators

    async def AddIncidentUpdate(
        self, request: pb.AddIncidentUpdateRequest, context: Any
    ) -> pb.AddIncidentUpdateResponse:
        async with self._operator(context, "AddIncidentUpdate", request.id):
            body = _text(request.body, "body")
            if request.id in self._publisher.maintenances.kept:
                self._publisher.maintenances.add_words(self._publisher.now_ns(), request.id, body)
            else:
                self._publisher.incidents.add_words(self._publisher.now_ns(), request.id, body)
        return pb.AddIncidentUpdateResponse()

    async def CorrectUpdate(self, request: pb.CorrectUpdateRequest, context: Any) -> pb.CorrectUpdateResponse:
        async with self._operator(context, "CorrectUpdate", request.update_id):
            body, now_ns = _text(request.body, "body"), self._publisher.now_ns()
            try:
                self._publisher.incidents.correct(now_ns, request.update_id, body)
            except IncidentUnknown:
                self._publisher.maintenances.correct(now_ns, request.update_id, body)
        return pb.CorrectUpdateResponse()

    async def GetPostmortemDraft(
        self, request: pb.GetPostmortemDraftRequest, context: Any
    ) -> pb.GetPostmortemDraftResponse:
        publisher = self._publisher
        async with self._operator(context, "GetPostmortemDraft", request.incident_id):
            incident = publisher.incidents.kept.get(request.incident_id)
            if incident is None:
                raise IncidentUnknown(f"expected the id of an incident, found none with {request.incident_id!r}")
            span = (incident.started_ns - _DAY_NS, (incident.resolved_ns or publisher.now_ns()))
            rows = publisher.store.read(
                "SELECT time_ns, kind, component, detail FROM events WHERE time_ns BETWEEN ? AND ? ORDER BY time_ns",
                span,
            )
            events = [LoggedEvent(*row) for row in rows]
            text = draft(incident, events, publisher.board().components, publisher.plan)
        return pb.GetPostmortemDraftResponse(text=text)

    async def PublishPostmortem(
        self, request: pb.PublishPostmortemRequest, context: Any
    ) -> pb.PublishPostmortemResponse:
        async with self._operator(context, "PublishPostmortem", request.incident_id):
            text = _text(request.text, "text", _TEXT_MAX)
            self._publisher.incidents.publish_postmortem(self._publisher.now_ns(), request.incident_id, text)
        return pb.PublishPostmortemResponse()

    async def ScheduleMaintenance(
        self, request: pb.ScheduleMaintenanceRequest, context: Any
    ) -> pb.ScheduleMaintenanceResponse:
        async with self._operator(context, "ScheduleMaintenance", request.name):
            known = [component.id for component in self._publisher.board().components]
            unknown = [name for name in request.components if name not in known]
            if unknown:
                raise TextInvalid(f"components: expected ids of {', '.join(known)}, was {', '.join(unknown)}")
            maintenance = self._publisher.maintenances.schedule(
                self._publisher.now_ns(),
                _text(request.name, "name", _NAME_MAX),
                request.components or known,
                request.from_time_ns,
                request.until_time_ns,
                _text(request.body, "body"),
            )
        return pb.ScheduleMaintenanceResponse(maintenance=maintenance_message(maintenance))

    async def RescheduleMaintenance(
        self, request: pb.RescheduleMaintenanceRequest, context: Any
    ) -> pb.RescheduleMaintenanceResponse:
        async with self._operator(context, "RescheduleMaintenance", request.id):
            body = _text(request.body, "body")
            maintenance = self._publisher.maintenances.reschedule(
                self._publisher.now_ns(), request.id, request.from_time_ns, request.until_time_ns, body
            )
        return pb.RescheduleMaintenanceResponse(maintenance=maintenance_message(maintenance))

    async def CancelMaintenance(
        self, request: pb.CancelMaintenanceRequest, context: Any
    ) -> pb.CancelMaintenanceResponse:
        async with self._operator(context, "CancelMaintenance", request.id):
            body = _text(request.body, "body")
            maintenance = self._publisher.maintenances.cancel(self._publisher.now_ns(), request.id, body)
        return pb.CancelMaintenanceResponse(maintenance=maintenance_message(maintenance))

    async def PutNotice(self, request: pb.PutNoticeRequest, context: Any) -> pb.PutNoticeResponse:
        async with self._operator(context, "PutNotice", ""):
            notice = self._publisher.put_notice(_text(request.body, "body"))
        return pb.PutNoticeResponse(notice=notice_message(notice))

    async def RemoveNotice(self, request: pb.RemoveNoticeRequest, context: Any) -> pb.RemoveNoticeResponse:
        async with self._operator(context, "RemoveNotice", request.id):
            self._publisher.remove_notice(request.id)
        return pb.RemoveNoticeResponse()

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: Any) -> pb.ListDeadLettersResponse:
        async with self._operator(context, "ListDeadLetters", ""):
            dead = self._announcer.outbox.dead.values() if self._announcer is not None else ()
            found = [
                pb.DeadLetter(
                    id=entry.id,
                    subscriber=entry.subscriber,
                    subject=entry.message.subject,
                    time_ns=entry.created_ns,
                    attempts=entry.attempts,
                    error=entry.error,
                )
                for entry in dead
            ]
        return pb.ListDeadLettersResponse(dead_letters=found)

    async def ResendDeadLetters(
        self, request: pb.ResendDeadLettersRequest, context: Any
    ) -> pb.ResendDeadLettersResponse:
        async with self._operator(context, "ResendDeadLetters", " ".join(request.ids)):
            announcer = self._announcer
            ids = list(request.ids) or (list(announcer.outbox.dead) if announcer is not None else [])
            resent = sum(announcer.revive(id_) for id_ in ids) if announcer is not None else 0
        return pb.ResendDeadLettersResponse(resent=resent)

    def _operator(self, context: Any, action: str, subject: str) -> _Operator:
        return _Operator(self._publisher, self._operators, context, action, subject)


class _Operator:
    """Lets only operators through, tells what was done at once, and answers errors as the API's."""

    def __init__(self, publisher: Publisher, operators: Operators, context: Any, action: str, subject: str) -> None:
        self._publisher = publisher
        self._operators = operators
        self._context = context
        self._action = action
        self._subject = subject

    async def __aenter__(self) -> None:
        given = next(
            (value for name, value in self._context.invocation_metadata() or () if name == "authorization"), ""
        )
        scheme, _, key = given.partition(" ")
        try:
            await self._operators.check(key.strip() if scheme.lower() == "bearer" else "")
        except NotAnOperator as error:
            await _abort(self._context, error)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            _log.info("status.operator", action=self._action, subject=self._subject)
            await self._publisher.refresh()
        elif isinstance(error, Exception) and type(error) in _CODES:
            await _abort(self._context, error)


async def _abort(context: Any, error: Exception) -> NoReturn:
    code = _CODES[type(error)]
    info = error_details_pb2.ErrorInfo(reason=getattr(error, "code", ""), domain=_DOMAIN)
    packed = any_pb2.Any()
    packed.Pack(info)
    status = status_pb2.Status(code=code.value[0], message=str(error), details=[packed])
    await context.abort(code, str(error), (("grpc-status-details-bin", status.SerializeToString()),))
    raise AssertionError("abort ends the call")


def _text(text: str, name: str, most: int = _BODY_MAX) -> str:
    found = text.strip()
    if not 1 <= len(found) <= most:
        raise TextInvalid(f"{name}: expected 1 to {most} characters, was {len(found)}")
    return found


class GrpcServer:
    """Serves the StatusService on a port of its own."""

    def __init__(self, servicer: StatusServicer, host: str, port: int) -> None:
        self._servicer = servicer
        self._host = host
        self._port = port
        self.port = 0
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Raises `PortTaken` where another process listens."""
        started = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        status_pb2_grpc.add_StatusServiceServicer_to_server(self._servicer, started)
        address = f"{self._host}:{self._port}"
        try:
            self.port = started.add_insecure_port(address)
        except RuntimeError as error:
            raise PortTaken(f"expected to listen on {address}, found: {error}; serving.grpc_port sets it") from error
        await started.start()
        self._server = started

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(grace=0.1)  # those who watch would never end
