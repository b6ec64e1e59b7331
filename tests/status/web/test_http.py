"""The public port, over HTTP without a socket."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import httpx
import pytest

from status.web.app import RateLimit, create_app
from tests.status.web import scenes
from tests.status.web.scenes import NOW_NS, FakePublisher


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(FakePublisher(scenes.incident()), now_ns=lambda: NOW_NS)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://status.test") as client:
        yield client


async def test_a_document_is_not_sent_again_to_who_has_it(client: httpx.AsyncClient) -> None:
    for path in ("/", "/api/v2/summary.json", "/feed.atom", "/badge.svg"):
        first = await client.get(path)
        assert first.status_code == 200
        again = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["etag"] == first.headers["etag"]
        other = await client.get(path, headers={"If-None-Match": 'W/"other"'})
        assert other.status_code == 200


async def test_gzip_is_given_to_who_takes_it(client: httpx.AsyncClient) -> None:
    plain = await client.get("/", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    async with client.stream("GET", "/", headers={"Accept-Encoding": "gzip, br"}) as answer:
        raw = b"".join([part async for part in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw) == plain.content
    refused = await client.get("/", headers={"Accept-Encoding": "gzip;q=0"})
    assert "content-encoding" not in refused.headers


@pytest.mark.parametrize("path", ["/", "/api/v2/summary.json", "/nowhere", "/api/nowhere", "/api/v5/system/status"])
async def test_every_answer_is_strict_about_what_a_browser_may_do(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["access-control-allow-origin"] == "*"


async def test_the_page_has_no_script_or_style_within(client: httpx.AsyncClient) -> None:
    text = (await client.get("/")).text
    assert text.count("<script") == text.count('<script src="') == 1
    assert "<style" not in text
    assert " style=" not in text
    assert " onclick" not in text


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "FOO"])
async def test_nothing_can_be_changed(client: httpx.AsyncClient, method: str) -> None:
    answer = await client.request(method, "/api/v2/summary.json")
    assert answer.status_code == 405
    assert answer.json()["code"] == "METHOD_NOT_ALLOWED"
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_head_and_preflight(client: httpx.AsyncClient) -> None:
    head = await client.head("/api/v2/summary.json")
    assert head.content == b""
    assert int(head.headers["content-length"]) > 0
    preflight = await client.options("/api/events", headers={"Origin": "https://a.test"})
    assert preflight.status_code == 204
    assert "Last-Event-ID" in preflight.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/static/../app.py", "/incidents/%2e%2e%2f", "/%00", "/incidents/<script>", "/404", "/api"],
)
async def test_what_does_not_exist_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 404
    assert "<script>" not in answer.text


async def test_errors_have_a_code_for_programs_and_a_page_for_people(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/v2/incidents/none.json")).json()["code"] == "NOT_FOUND"
    assert "There is no such page" in (await client.get("/incidents/none")).text
    long = await client.get("/api/" + "a" * 4000)
    assert (long.status_code, long.json()["code"]) == (414, "URL_TOO_LONG")


async def test_okx_style_status_is_limited_as_theirs(client: httpx.AsyncClient) -> None:
    first = await client.get("/api/v5/system/status")
    assert (first.status_code, first.json()["code"]) == (200, "0")
    second = await client.get("/api/v5/system/status")
    assert (second.status_code, second.json()["code"]) == (429, "50011")
    assert second.headers["retry-after"] == "5"
    wrong = await client.get("/api/v5/system/status", params={"state": "<b>"})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "51000")


def test_the_rate_limit_remembers_so_many_addresses_and_no_more() -> None:
    limit = RateLimit(5.0, 2)
    assert limit.take("a", 0.0)
    assert not limit.take("a", 4.9)
    assert limit.take("a", 5.0)
    assert limit.take("b", 5.0)
    assert limit.take("c", 5.0)
    assert limit.take("a", 5.1), "forgotten, since others came"


async def test_static_files_may_be_kept_for_ever(client: httpx.AsyncClient) -> None:
    text = (await client.get("/")).text
    name = text.partition('src="./')[2].partition('"')[0]
    answer = await client.get(f"/{name}")
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]
