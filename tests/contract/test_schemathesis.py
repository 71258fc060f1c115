"""A running server against ``kallichore.json``, with requests that schemathesis makes up.

Whatever is asked, the answer is one that the document has: no undocumented status, shape or content
type, and no 5xx but those with which a start, a restart or an adoption may fail.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests
import schemathesis
from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from tests.contract.document import load
from tests.contract.responses import check_response
from tests.puppets import puppet_argv
from tests.web.fakes import NEW_SESSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN: Final = "a-token-of-the-tests"
WITH_TOKEN: Final = {"Authorization": f"Bearer {TOKEN}"}
FOR_EVER: Final = ("--set", "idle_now_seconds=100000")
"""Whatever is set, the server does not end by itself."""
EXAMPLES: Final = 15
"""For each operation and kind of data."""
MAY_FAIL: Final = {"start-session", "restart-session", "adopt-session", "connection-info"}
"""Operations with a 500 that is no fault of the server."""
PATIENCE: Final = 20

load_all_checks()
SCHEMA: Final = schemathesis.openapi.from_dict(load()).exclude(operation_id="shutdown-server")
FOUND: Final[list[Any]] = [result.ok() for result in list[Any](SCHEMA.get_all_operations())]
OPERATIONS: Final = {one.definition.raw["operationId"]: one for one in FOUND}
ALWAYS: Final = (
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
"""What every answer must be, as schemathesis sees it."""
LENIENT: Final = {
    "channels-upgrade",  # without an upgrade it is refused with 426, whatever else is wrong
    "client-heartbeat",  # a body of null is none
    "restart-session",
}
"""Operations that need not answer 400 to what the document does not allow."""
SESSIONS: Final = {
    "idle": puppet_argv(),
    "fresh": puppet_argv(),
    "failing": ["/bin/false"],
    "foreign": [],
}
KINDS: Final = {
    "adopt-session": ["idle"],  # nothing is there that could be adopted
    "start-session": ["idle", "failing", "foreign"],
    "restart-session": ["failing", "foreign"],
    "delete-session": ["idle"],
    "kill-session": ["fresh", "foreign"],
}
"""The sessions that an operation is tried on, besides those that do not exist, where not all."""


@contextmanager
def open_command(directory: Path) -> Iterator[str]:
    """Run the server as others do; give its address."""
    token = directory / "token"
    token.write_text(TOKEN)
    argv = [sys.executable, "-m", "kallichore", "--token", str(token), *FOR_EVER]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            yield "http://" + process.stdout.readline().decode().split()[-1]
        finally:
            process.terminate()
            assert process.wait(PATIENCE) == 0


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a session of each kind."""
    with open_command(tmp_path_factory.mktemp("server")) as url:
        for session_id, argv in SESSIONS.items():
            body = {**NEW_SESSION, "session_id": session_id, "argv": argv}
            put = requests.put(f"{url}/sessions", json=body, headers=WITH_TOKEN, timeout=PATIENCE)
            assert put.json() == {"session_id": session_id}
        start = requests.post(f"{url}/sessions/idle/start", headers=WITH_TOKEN, timeout=PATIENCE)
        assert start.status_code == 200
        yield url


@pytest.mark.parametrize(
    ("operation_id", "mode"),
    [
        pytest.param(operation_id, mode, id=f"{operation_id}-{mode.value}")
        for operation_id in OPERATIONS
        for mode in GenerationMode
        if (operation_id, mode) != ("server-status", GenerationMode.NEGATIVE)  # it takes nothing
    ],
)
def test_every_answer_is_one_of_the_document(
    address: str, operation_id: str, mode: GenerationMode
) -> None:
    operation = OPERATIONS[operation_id]
    kinds = [None, *KINDS.get(operation_id, SESSIONS)]
    refusing = () if operation_id in LENIENT else ("negative_data_rejection",)
    checks: list[Any] = [CHECKS.get_one(name) for name in (*ALWAYS, *refusing)]

    @settings(max_examples=EXAMPLES)
    @given(operation.as_strategy(generation_mode=mode), st.sampled_from(kinds))
    def ask(case: schemathesis.Case[Any], kind: str | None) -> None:
        if kind is not None and "session_id" in case.path_parameters:
            case.path_parameters["session_id"] = kind
        answer = case.call(base_url=address, headers=WITH_TOKEN, timeout=PATIENCE)
        case.validate_response(answer, checks=checks)
        (content_type,) = answer.headers.get("content-type", [None])
        check_response(operation_id, answer.status_code, content_type, answer.content)
        assert answer.status_code < 500 or operation_id in MAY_FAIL, answer.text

    ask()
