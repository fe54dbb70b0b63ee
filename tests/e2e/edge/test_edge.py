import asyncio
import re
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from uuid import UUID

import asyncpg
import httpx
import pytest
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.testing import capture_logs

from maas.shared.domain.call import current_call
from maas.shared.domain.errors import NotFoundError
from maas.shared.domain.ids import new_id
from maas.shared.interface.etags import RequiredIfMatch, etag_of
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from tests.fakes.edge import Edge, make_edge, make_principal

pytestmark = pytest.mark.e2e

router = APIRouter(route_class=StrictRoute)
things = APIRouter(prefix="/things", route_class=StrictRoute)


@router.get("/address")
async def get_address() -> list[str | None]:
    call = current_call()
    return [call.address, call.user_agent, call.request_id]


@router.get("/broken")
async def break_down() -> None:
    raise RuntimeError("hunter2")


@router.get("/torn")
async def tear() -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"first"
        raise RuntimeError("hunter2")

    return StreamingResponse(chunks())


@router.get("/outage")
async def meet_outage() -> None:
    raise asyncpg.AdminShutdownError("terminating connection due to hunter2")


@router.get("/slow")
async def wait(request: Request) -> bool:
    await request.app.state.arrivals.put(1)
    is_open: bool = await request.app.state.gate.wait()
    return is_open


@router.get("/cached")
async def get_cached(response: Response) -> int:
    response.headers["Cache-Control"] = "private, max-age=60"
    return 1


@things.get("/{thing_id}", dependencies=[requires("thing:read")])
async def get_thing(thing_id: UUID, caller: Caller, response: Response) -> str:
    response.headers["ETag"] = etag_of(7)
    return f"{thing_id} {caller.username}"


@things.put("/{thing_id}", dependencies=[requires("thing:write")])
async def put_thing(thing_id: UUID, if_match: RequiredIfMatch) -> int:
    if_match.check(7)
    return 8


@things.delete("/{thing_id}", dependencies=[requires("thing:write")])
async def delete_thing(thing_id: UUID) -> None:
    raise NotFoundError


@pytest.fixture
def edge() -> Edge:
    return make_edge(router, things, trusted_proxies=["10.0.0.0/8"], max_in_flight=2)


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with edge.client() as client:
        yield client


class TestRequestId:
    @pytest.mark.parametrize("sent", ["a", "0123-ABC_x.y", "x" * 128])
    async def test_a_sane_one_is_kept(self, client: httpx.AsyncClient, sent: str) -> None:
        answer = await client.get("/api/v1/address", headers={"X-Request-ID": sent})

        assert answer.headers["x-request-id"] == sent
        assert answer.json()[2] == sent

    @pytest.mark.parametrize("sent", ["", "a b", "x" * 129, "a\tb", "é", "<script>"])
    async def test_another_is_replaced_by_a_uuid7(
        self, client: httpx.AsyncClient, sent: str
    ) -> None:
        answer = await client.get(
            "/api/v1/address", headers={b"X-Request-ID": sent.encode("latin-1")}
        )

        made = UUID(answer.headers["x-request-id"])
        assert (made.version, made.variant) == (7, "specified in RFC 4122")
        # Not beside `new_id`: after thousands of ids at once its clock is that many ms ahead.
        assert abs((made.int >> 80) - time.time_ns() // 1_000_000) < 10_000

    async def test_two_are_never_the_same(self, client: httpx.AsyncClient) -> None:
        ids = {(await client.get("/health/live")).headers["x-request-id"] for _ in range(100)}

        assert len(ids) == 100


class TestHeaders:
    @pytest.mark.parametrize(
        "path", ["/health/live", "/api/v1/address", "/nowhere", "/api/v1/broken", "/openapi.json"]
    )
    async def test_every_answer_is_guarded(self, client: httpx.AsyncClient, path: str) -> None:
        headers = (await client.get(path)).headers

        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-api-version"] == "1"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers
        assert "strict-transport-security" not in headers

    async def test_https_asks_for_https_for_ever(self, edge: Edge) -> None:
        async with edge.client(base_url="https://maas.test") as client:
            answer = await client.get("/health/live")

        assert answer.headers["strict-transport-security"].startswith("max-age=")

    @pytest.mark.parametrize(
        ("peer", "says", "is_https"),
        [
            ("10.0.0.1", "https", True),
            ("10.0.0.1", "http, HTTPS ", True),
            ("10.0.0.1", "https, http", False),
            ("10.0.0.1", "ws", False),
            ("198.51.100.1", "https", False),
        ],
    )
    async def test_a_proxy_that_is_trusted_tells_of_https(
        self, edge: Edge, peer: str, says: str, *, is_https: bool
    ) -> None:
        edge.client_address = (peer, 1)
        async with edge.client() as client:
            answer = await client.get("/api/v1/address", headers={"X-Forwarded-Proto": says})

        assert ("strict-transport-security" in answer.headers) == is_https
        assert answer.json()[0] == peer

    async def test_a_route_may_say_how_long_to_keep(self, client: httpx.AsyncClient) -> None:
        answer = await client.get("/api/v1/cached")

        assert answer.headers.get_list("cache-control") == ["private, max-age=60"]

    @pytest.mark.parametrize("path", ["/docs", "/redoc"])
    async def test_documentation_may_run_its_scripts_and_nothing_else(
        self, client: httpx.AsyncClient, path: str
    ) -> None:
        answer = await client.get(path)

        policy = answer.headers.get_list("content-security-policy")
        assert answer.status_code == 200
        assert len(policy) == 1
        assert "default-src 'none'; script-src 'self'" in policy[0]
        assert "unsafe-inline" not in policy[0].split("style-src")[0]
        for script in re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL):
            assert f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in policy[0]

    @pytest.mark.parametrize("path", ["/docs", "/redoc"])
    async def test_documentation_loads_nothing_from_elsewhere(
        self, client: httpx.AsyncClient, path: str
    ) -> None:
        page = (await client.get(path)).text

        loaded = re.findall(r"(?:src|href)=\"([^\"]+)", page)
        answers = [await client.get(each) for each in loaded]
        assert len(loaded) >= 2
        assert [answer.status_code for answer in answers] == [200] * len(loaded)
        assert {answer.headers["cache-control"] for answer in answers} == {"public, max-age=86400"}
        assert "https://" not in page

    async def test_documentation_has_no_other_file(self, client: httpx.AsyncClient) -> None:
        answers = [
            await client.get(f"/docs/assets/{name}") for name in ("nosuch.js", "..%2f__init__.py")
        ]

        assert [answer.status_code for answer in answers] == [404, 404]
        assert all(
            "default-src 'none'" in each.headers["content-security-policy"] for each in answers
        )

    async def test_a_stopping_process_closes_its_connections(
        self, edge: Edge, client: httpx.AsyncClient
    ) -> None:
        edge.traffic.drain()

        assert (await client.get("/api/v1/address")).headers["connection"] == "close"


class TestAddress:
    @pytest.mark.parametrize(
        ("peer", "forwarded", "address"),
        [
            ("198.51.100.1", "203.0.113.7", "198.51.100.1"),
            ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
            ("10.0.0.1", "6.6.6.6, 203.0.113.7, 10.2.2.2", "203.0.113.7"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("::ffff:10.0.0.1", "203.0.113.7", "203.0.113.7"),
            ("testclient", "203.0.113.7", None),
        ],
    )
    async def test_comes_from_trusted_proxies_only(
        self, edge: Edge, peer: str, forwarded: str, address: str | None
    ) -> None:
        edge.client_address = (peer, 1)

        async with edge.client() as client:
            answer = await client.get(
                "/api/v1/address", headers={"X-Forwarded-For": forwarded, "User-Agent": "x" * 9000}
            )

        assert answer.json()[:2] == [address, "x" * 512]


class TestRouter:
    async def test_unknown_paths_are_problems(self, client: httpx.AsyncClient) -> None:
        answer = await client.get("/api/v1/nowhere")

        assert (answer.status_code, answer.json()["code"]) == (404, "route-not-found")
        assert answer.headers["content-type"] == "application/problem+json"

    async def test_a_trailing_slash_is_another_path(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/api/v1/address/")).status_code == 404

    async def test_other_methods_are_told_which_there_are(self, client: httpx.AsyncClient) -> None:
        by_id = await client.patch(f"/api/v1/things/{new_id()}")
        plain = await client.delete("/health/live")

        assert (by_id.status_code, by_id.json()["code"]) == (405, "method-not-allowed")
        assert by_id.headers["allow"] == "DELETE, GET, HEAD, PUT"
        assert (plain.status_code, plain.headers["allow"]) == (405, "GET, HEAD")

    @pytest.mark.parametrize("url", ["/api/v1/%00", "/api/v1/%FF", "/api/v1/address?q=%00"])
    async def test_urls_that_do_not_decode_are_refused(
        self, client: httpx.AsyncClient, url: str
    ) -> None:
        answer = await client.get(url)

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-url")

    async def test_long_urls_are_refused(self, client: httpx.AsyncClient) -> None:
        answer = await client.get("/api/v1/address?q=" + "x" * 9000)

        assert (answer.status_code, answer.json()["code"]) == (414, "uri-too-long")


class TestErrors:
    async def test_a_bug_is_a_plain_500_with_an_id_and_a_log(
        self, client: httpx.AsyncClient
    ) -> None:
        with capture_logs() as logs:
            answer = await client.get("/api/v1/broken")

        assert (answer.status_code, answer.json()["code"]) == (500, "internal-error")
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert "hunter2" not in answer.text
        assert [log["event"] for log in logs] == ["request_failed", "request_served"]
        assert logs[0]["exc_info"] is True
        assert logs[1]["status"] == 500

    async def test_a_bug_amid_an_answer_is_logged_and_leaves_it_incomplete(
        self, edge: Edge
    ) -> None:
        async def receive() -> Message:
            await asyncio.Event().wait()
            return {}

        with capture_logs() as logs:
            sent = await edge.call("/api/v1/torn", receive, method="GET", headers={})

        assert [message.get("body") for message in sent] == [None, b"first"]
        assert sent[-1]["more_body"] is True
        assert [log["event"] for log in logs] == ["request_failed", "request_served"]

    async def test_an_outage_is_a_503_without_its_message(self, client: httpx.AsyncClient) -> None:
        with capture_logs() as logs:
            answer = await client.get("/api/v1/outage")

        assert (answer.status_code, answer.json()["code"]) == (503, "database-unavailable")
        assert answer.headers["retry-after"] == "1"
        assert "hunter2" not in answer.text + repr(logs)

    async def test_what_breaks_outside_of_the_edge_is_answered_too(self) -> None:
        class Breaking:
            def __init__(self, app: ASGIApp) -> None: ...

            async def __call__(self, _scope: Scope, _receive: Receive, _send: Send) -> None:
                raise RuntimeError("hunter2")

        edge = make_edge(router, things, extra=[Middleware(Breaking)])

        async with edge.client() as client:
            with capture_logs() as logs:
                answer = await client.get("/api/v1/address")

        assert (answer.status_code, answer.json()["code"]) == (500, "internal-error")
        assert answer.headers["content-type"] == "application/problem+json"
        assert [log["event"] for log in logs] == ["edge_failed"]


class TestLoad:
    @pytest.fixture(autouse=True)
    def gate(self, edge: Edge) -> asyncio.Event:
        edge.app.state.arrivals = asyncio.Queue()
        edge.app.state.gate = asyncio.Event()
        gate: asyncio.Event = edge.app.state.gate
        return gate

    async def test_too_much_at_once_is_turned_away_at_once(
        self, edge: Edge, client: httpx.AsyncClient, gate: asyncio.Event
    ) -> None:
        held = [asyncio.create_task(client.get("/api/v1/slow")) for _ in range(2)]
        for _ in held:
            await edge.app.state.arrivals.get()

        refused = await client.get("/api/v1/address")
        live = await client.get("/health/live")
        metrics = await edge_metrics(edge)
        gate.set()
        answers = await asyncio.gather(*held)

        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert refused.headers["retry-after"] == "1"
        assert live.status_code == 200
        assert "maas_http_requests_shed_total 1.0" in metrics
        assert "maas_http_requests_in_flight 2.0" in metrics
        assert [answer.status_code for answer in answers] == [200, 200]
        assert edge.traffic.in_flight == 0

    @pytest.mark.parametrize(("path", "counts"), [("/api/v1/address", 1), ("/api/v1/none", 0)])
    async def test_only_what_was_worked_on_makes_room_for_more(
        self, edge: Edge, client: httpx.AsyncClient, path: str, counts: int
    ) -> None:
        await client.get(path)

        assert edge.traffic._counted == counts

    async def test_a_cancelled_request_gives_its_place_back(
        self, edge: Edge, client: httpx.AsyncClient
    ) -> None:
        held = asyncio.create_task(client.get("/api/v1/slow"))
        await edge.app.state.arrivals.get()

        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held

        assert edge.traffic.in_flight == 0


async def edge_metrics(edge: Edge) -> str:
    return (await edge.metrics.render()).decode()


class TestObservation:
    async def test_one_line_a_request_with_the_template_and_not_the_path(
        self, edge: Edge, client: httpx.AsyncClient
    ) -> None:
        principal = make_principal("thing:read")
        edge.authenticator.principals["t"] = principal
        thing_id = new_id()

        with capture_logs() as logs:
            await client.get(f"/api/v1/things/{thing_id}", headers={"X-API-Key": "t"})

        [line] = logs
        assert line["event"] == "request_served"
        assert line["route"] == "/api/v1/things/{thing_id}"
        assert (line["method"], line["status"]) == ("GET", 200)
        assert line["account_id"] == str(principal.account_id)
        assert line["tenant_id"] == str(principal.tenant_id)
        assert str(thing_id) not in repr(line)

    async def test_health_leaves_no_line(self, client: httpx.AsyncClient) -> None:
        with capture_logs() as logs:
            await client.get("/health/live")
            await client.get("/health/ready")

        assert logs == []

    async def test_metrics_have_bounded_labels(self, edge: Edge, client: httpx.AsyncClient) -> None:
        for path in ("/api/v1/nowhere/1", "/api/v1/nowhere/2", f"/api/v1/things/{new_id()}"):
            await client.get(path)
        await client.request("BREW", "/api/v1/address")

        text = await edge_metrics(edge)

        requests = {line for line in text.splitlines() if line.startswith("maas_http_requests_t")}
        assert requests == {
            f"maas_http_requests_total{{{labels}}} {count}"
            for labels, count in (
                ('method="GET",route="unmatched",status="404"', "2.0"),
                ('method="GET",route="/api/v1/things/{thing_id}",status="401"', "1.0"),
                ('method="OTHER",route="unmatched",status="405"', "1.0"),
            )
        }


class TestConditionalRequests:
    @pytest.fixture
    def headers(self, edge: Edge) -> dict[str, str]:
        edge.authenticator.principals["t"] = make_principal("thing:*")
        return {"X-API-Key": "t"}

    async def test_an_unchanged_read_is_304(
        self, client: httpx.AsyncClient, headers: dict[str, str]
    ) -> None:
        url = f"/api/v1/things/{new_id()}"

        fresh = await client.get(url, headers={**headers, "If-None-Match": '"6"'})
        same = await client.get(url, headers={**headers, "If-None-Match": fresh.headers["etag"]})

        assert (fresh.status_code, fresh.headers["etag"]) == (200, '"7"')
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", '"7"')

    @pytest.mark.parametrize(
        ("sent", "status"), [({}, 428), ({"If-Match": '"6"'}, 412), ({"If-Match": '"7"'}, 200)]
    )
    async def test_a_write_needs_the_version_it_saw(
        self, client: httpx.AsyncClient, headers: dict[str, str], sent: dict[str, str], status: int
    ) -> None:
        answer = await client.put(f"/api/v1/things/{new_id()}", headers={**headers, **sent})

        assert answer.status_code == status
