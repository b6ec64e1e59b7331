"""E-mail: the first message of a subject, and then answers to it, so that a reader sees one thread."""

from __future__ import annotations

import asyncio
import smtplib
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

from status.announce.delivery import Delivery, NotDelivered, Refused
from status.announce.subscribers import Mail

TIMEOUT_S = 20.0
_PERMANENT = 500


class MailChannel:
    """The Message-ID follows from the delivery: a server that has it already drops the second."""

    def __init__(self, subscriber: Mail, password: str) -> None:
        self._subscriber = subscriber
        self._password = password

    async def deliver(self, delivery: Delivery) -> str:
        return await asyncio.to_thread(self._deliver, delivery)

    def _deliver(self, delivery: Delivery) -> str:
        mail = self.mail_of(delivery)
        subscriber = self._subscriber
        try:
            with smtplib.SMTP(subscriber.host, subscriber.port, timeout=TIMEOUT_S) as server:
                if subscriber.starttls:
                    server.starttls()
                if subscriber.user:
                    server.login(subscriber.user, self._password)
                server.send_message(mail)
        except smtplib.SMTPRecipientsRefused as error:
            code, said = next(iter(error.recipients.values()))
            raise self._failure(code, said.decode(errors="replace")) from error
        except smtplib.SMTPResponseException as error:
            # Its stubs say bytes or str; a server's words are bytes.
            raise self._failure(error.smtp_code, str(error.smtp_error, "utf-8", "replace")) from error  # type: ignore[arg-type]
        except (smtplib.SMTPException, OSError) as error:
            raise NotDelivered(f"mail: {error}") from error
        return delivery.reference or str(mail["Message-ID"])

    def mail_of(self, delivery: Delivery) -> EmailMessage:
        message, subscriber = delivery.message, self._subscriber
        mail = EmailMessage()
        status = message.status.replace("_", " ").capitalize()
        mail["From"], mail["To"] = subscriber.sender, subscriber.to
        # A header has no line breaks, whatever an operator wrote.
        title = " ".join(message.title.split())
        mail["Subject"] = f"Re: {title}" if delivery.reference else title
        mail["Date"] = format_datetime(datetime.fromtimestamp(message.at_ns / 1e9, UTC))
        mail["Message-ID"] = f"<{delivery.id}@{subscriber.sender.partition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"
        if delivery.reference:
            mail["In-Reply-To"] = mail["References"] = delivery.reference
        mail.set_content(f"{status}\n\n{message.text}\n\n{message.url}\n")
        return mail

    @staticmethod
    def _failure(code: int, said: str) -> Refused | NotDelivered:
        what = f"mail: the server said {code} {said}"
        return Refused(what) if code >= _PERMANENT else NotDelivered(what)

    async def close(self) -> None:
        """Each message has a connection of its own."""
