"""An alias over HTTP: made, moved under conditions, asked for a moment, deleted."""

import httpx
import pytest

from tests.e2e.model.conftest import make_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]


async def test_an_alias_moves_under_conditions_and_remembers(api: httpx.AsyncClient) -> None:
    version = await make_version(api)
    model = version.partition("/versions/")[0]
    alias = f"{model}/aliases/production"
    await api.put(f"{version}/files/notes.txt", content=b"x")
    refused = await api.put(alias, json={"version": "1.0.0"})
    await api.post(f"{version}/transition", json={"status": "ready"})

    made = await api.put(alias, json={"version": "1.0.0"}, headers={"If-None-Match": "*"})
    again = await api.put(alias, json={"version": "1.0.0"}, headers={"If-None-Match": "*"})
    stale = await api.delete(alias, headers={"If-Match": '"9"'})
    found = (await api.get("model-versions", params={"alias": "production"})).json()["items"]
    gone = await api.delete(alias, headers={"If-Match": made.headers["ETag"]})

    history = (await api.get(f"{alias}/history")).json()["items"]
    then = await api.get(f"{alias}/history", params={"at": made.json()["moved_at"]})
    before = await api.get(f"{alias}/history", params={"at": "2026-01-01T00:00:00Z"})
    assert refused.json()["code"] == "version-not-ready"
    assert (made.status_code, again.status_code, stale.status_code) == (201, 412, 412)
    assert [item["version"]["version"] for item in found] == ["1.0.0"]
    assert (gone.status_code, (await api.get(alias)).status_code) == (204, 404)
    assert [move["version"] for move in history] == [None, "1.0.0"]
    assert then.json()["items"] == history[1:]
    assert before.json()["code"] == "alias-not-then"
