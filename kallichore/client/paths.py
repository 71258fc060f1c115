"""The paths of the API's operations on a session."""

from __future__ import annotations

from urllib.parse import quote

__all__ = ["session_path"]


def session_path(session_id: str, operation: str = "") -> str:
    """Give the path of an operation on a session, whatever its id is made of."""
    # A dot is encoded too: "." and ".." are ids, but directories to those who normalize URLs.
    name = quote(session_id, safe="").replace(".", "%2E")
    return f"/sessions/{name}/{operation}" if operation else f"/sessions/{name}"
