"""How a puppet's messages look on the wire (messaging spec, "The wire protocol")."""

from __future__ import annotations

import hashlib
import hmac
import json

DELIMITER = b"<IDS|MSG>"
INFO = {
    "status": "ok",
    "protocol_version": "5.4",
    "implementation": "puppet",
    "implementation_version": "1",
    "language_info": {"name": "python", "version": "3", "mimetype": "text/plain"},
    "banner": "A puppet",
    "help_links": [],
}
"""Content of a `kernel_info_reply`, as far as the test does not say otherwise."""


def compose(key: str, parts: tuple[object, ...], buffers: tuple[bytes, ...]) -> list[bytes]:
    """Make a signed message of header, parent header, metadata and content.

    Parts that are bytes already go as they are.
    """
    texts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts]
    signer = hmac.new(key.encode(), b"".join(texts), digestmod=hashlib.sha256)
    return [DELIMITER, signer.hexdigest().encode(), *texts, *buffers]
