"""Requests of every kind in any order, as schemathesis draws them from the document.

Whatever came before, each answer is one that the document has; and in the end the server is well.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.checks import load_all_checks

from tests.puppets import puppet_argv

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = Path(__file__).parents[2] / "kallichore.json"
TOKEN = "a-token-of-the-tests"
LEFT_OUT = r"/(shutdown|adopt|client_heartbeat)$"
"""What would end the server, or have it look for kernels elsewhere."""
ROUND = 5
"""Examples that hypothesis draws together."""
HARMLESS = {
    "argv": puppet_argv(),
    "env": [],
    "working_directory": "",
    "startup_environment": "none",
    "startup_environment_arg": None,
    "connection_timeout": 10,
    "interrupt_mode": "signal",
}
"""Fields of a session: nobody knows what random commands would do."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="kc-") as name:
        token, log = Path(name) / "token", Path(name) / "log"
        token.write_text(TOKEN)
        command = [sys.executable, "-m", "kallichore", "--transport=tcp", "--log-level=warn"]
        command += [f"--token={token}", f"--log-file={log}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield process.stdout.readline().strip().replace("Listening at ", "http://")
                assert process.poll() is None
            finally:
                process.terminate()
                process.communicate()
        assert process.returncode == 0
        assert " ERROR " not in log.read_text()


@pytest.mark.hypothesis
def test_whatever_is_asked_in_whatever_order_the_document_has_the_answer(
    server: str,
) -> None:
    load_all_checks()
    schema: Any = schemathesis.openapi.from_path(DOCUMENT).exclude(path_regex=LEFT_OUT)
    schema.config.update(base_url=server)
    names = ("response_schema_conformance", "status_code_conformance", "content_type_conformance")
    checks = [schemathesis.checks.CHECKS.get_one(name) for name in names]
    answered: set[int] = set()

    class Anybody(schema.as_state_machine()):  # type: ignore[misc]
        def before_call(self, case: Any) -> None:
            """Replace what is not for a test to draw."""
            if isinstance(case.body, dict):
                if "argv" in case.body:
                    case.body.update(HARMLESS)
                if "code" in case.body:
                    case.body["code"] = "say('1')"
                if "env" in case.body:
                    case.body["env"] = []

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:  # noqa: ARG002
            return {"headers": {"Authorization": f"Bearer {TOKEN}"}, "timeout": 20}

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            answered.add(response.status_code)
            case.validate_response(response, checks=checks)

    _run(Anybody)
    assert {200, 404} <= answered


def _run(machine: Any) -> None:
    """Draw few examples at a time, which know little of each other.

    Answers depend on what came before, also in earlier examples, and hypothesis does not like that.
    """
    bounds = settings(
        max_examples=ROUND, stateful_step_count=10, suppress_health_check=list(HealthCheck)
    )
    for _ in range(max(1, settings().max_examples // 20 // ROUND)):
        run_state_machine_as_test(machine, settings=bounds)
