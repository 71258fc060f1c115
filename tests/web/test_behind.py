"""The status, which the door answers by itself, and the application, loaded when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.web.wire import request

if TYPE_CHECKING:
    import pytest

    from tests.web.conftest import Front

WITHOUT_TOKEN: dict[str, str | None] = {"Authorization": None}
THROUGH_THE_APPLICATION: dict[str, str | None] = {"Content-Length": "0", "Authorization": None}


async def test_the_door_answers_as_the_application_does(front: Front) -> None:
    ours = await front.ask("GET", "/status", headers=WITHOUT_TOKEN)
    its = await front.ask("GET", "/status", headers=THROUGH_THE_APPLICATION)
    assert ours.status == its.status == 200
    assert set(ours.headers) == set(its.headers)
    assert ours.headers["content-type"] == its.headers["content-type"]
    assert ours.json.keys() == its.json.keys()


async def test_the_status_does_not_wait_for_the_application(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front.door._behind, "serve", None)
    assert (await front.ask("GET", "/status")).status == 200


async def test_a_connection_goes_on_after_the_status(front: Front) -> None:
    wire = await front.connect()
    async with wire.stream:
        for path in ("/status", "/sessions", "/status", "/status"):
            answer = await wire.ask(request("GET", path))
            assert answer.status == 200
            assert "connection" not in answer.headers


async def test_a_connection_ends_after_the_status_when_asked_to(front: Front) -> None:
    wire = await front.connect()
    async with wire.stream:
        answer = await wire.ask(request("GET", "/status", headers={"Connection": "close"}))
        assert answer.headers["connection"] == "close"
        assert await wire.stream.receive_some() == b""


async def test_a_web_page_learns_no_status(front: Front) -> None:
    answer = await front.ask("GET", "/status", headers={"Origin": "http://example.org"})
    assert answer.status == 403
