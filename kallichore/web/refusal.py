"""Answers that the door gives by itself: small, complete, and the last ones on their connection."""

from __future__ import annotations

import uuid
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

import msgspec

from kallichore.models import Error

if TYPE_CHECKING:
    from kallichore.errors import KallichoreError

__all__ = ["Headers", "Refused", "new_span", "response"]

Headers = tuple[tuple[bytes, bytes], ...]
"""The fields of a head: names in lower case, in the order of their arrival."""


class Refused(Exception):
    """A request that is answered without an application, and ends its connection."""

    def __init__(self, status: int, error: Error | None = None, headers: Headers = ()) -> None:
        """Say it with this status, with ``error`` as the body if there is one."""
        super().__init__(f"{status} {error.message if error else 'without a body'}")
        self.status = status
        self.error = error
        self.headers = headers

    @classmethod
    def because(cls, status: int, code: str, message: str, headers: Headers = ()) -> Self:
        """Refuse for a reason that only the door knows."""
        return cls(status, Error(code=code, message=message), headers)

    @classmethod
    def by(cls, error: KallichoreError) -> Self:
        """Refuse with an error that operations can have too."""
        return cls(error.status, None if error.empty_body else error.to_model())


def new_span() -> bytes:
    """A fresh value for ``X-Span-ID``."""
    return str(uuid.uuid4()).encode()


def response(refused: Refused, span: bytes | None = None) -> bytes:
    """The whole answer, head and body."""
    body = b"" if refused.error is None else msgspec.json.encode(refused.error)
    fields = [
        (b"date", formatdate(usegmt=True).encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        (b"x-span-id", span or new_span()),
        *refused.headers,
    ]
    if body:
        fields.append((b"content-type", b"application/json"))
    lines = [f"HTTP/1.1 {refused.status} {HTTPStatus(refused.status).phrase}".encode()]
    lines += [name + b": " + value for name, value in fields]
    return b"\r\n".join([*lines, b"", body])
