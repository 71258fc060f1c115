"""Who may ask: the token, the ``Host`` and the ``Origin`` of a request (CONTRACT 1.3, 2).

Plain functions over header fields. The door asks them for channels, the application for everything
else, so that both decide alike.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from kallichore.errors import Forbidden
from kallichore.web.refusal import Refused

if TYPE_CHECKING:
    from kallichore.web.refusal import Headers

__all__ = ["Access"]

_HOST = re.compile(r"(?P<name>\[[^\]]*\]|[^:]*)(?::\d{1,5})?")
_ORIGIN = re.compile(r"https?://(?P<host>[^/?#@]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one listener."""

    token: str | None
    """None turns authentication off."""
    loopback_hosts_only: bool
    """Whether ``Host`` must name this machine: on TCP, where a web page's name could lead here."""

    def check(self, headers: Headers, *, token_needed: bool = True) -> None:
        """Let a request pass.

        Raises:
            Refused: 403 for its ``Host`` or ``Origin``, 401 for its token.

        """
        hosts = [value for name, value in headers if name == b"host"]
        if self.loopback_hosts_only and not (len(hosts) == 1 and _is_loopback(hosts[0])):
            raise Refused.by(Forbidden("The request's Host is not a name or address of loopback"))
        origins = [value for name, value in headers if name == b"origin"]
        if not all(map(_is_loopback_origin, origins)):
            raise Refused.by(Forbidden("The request comes from a web page that may not use this"))
        if token_needed and not self._has_token(headers):
            raise Refused(401, headers=((b"www-authenticate", b"Bearer"),))

    def _has_token(self, headers: Headers) -> bool:
        if self.token is None:
            return True
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        same = hmac.compare_digest(token.strip(), self.token.encode())
        return same and scheme.lower() == b"bearer"


def _is_loopback(host: bytes) -> bool:
    """Whether ``host``, with or without a port, is this machine whatever a resolver says."""
    match = _HOST.fullmatch(host.decode("latin-1"))
    if match is None:
        return False
    name = match["name"].lower()
    if name == "localhost":
        return True
    try:
        if name.startswith("["):
            return IPv6Address(name[1:-1]).is_loopback
        return IPv4Address(name).is_loopback
    except ValueError:
        return False


def _is_loopback_origin(origin: bytes) -> bool:
    match = _ORIGIN.fullmatch(origin.decode("latin-1"))
    return match is not None and _is_loopback(match["host"].encode("latin-1"))
