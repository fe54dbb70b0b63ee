"""What files say of themselves, and what is refused for it, through HTTP."""

import httpx
import pytest

from tests.e2e.conftest import MakePerson, Person
from tests.e2e.model.conftest import make_version
from tests.factories.weights import make_gguf, make_zip

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

PICKLE = b"\x80\x04\x95" + bytes(100)


@pytest.fixture
async def developer(make_person: MakePerson) -> Person:
    return await make_person("dev", roles=("developer",))


class TestFacts:
    async def test_a_file_and_its_version_say_what_was_read(self, api: httpx.AsyncClient) -> None:
        version = await make_version(api)

        up = await api.put(f"{version}/files/model.gguf", content=make_gguf())
        files = await api.get(f"{version}/files")
        whole = await api.get(version)
        moved = await api.post(f"{version}/transition", json={"status": "ready"})

        assert up.status_code == 201, up.text
        assert up.json()["facts"] == {
            "format": "gguf",
            "architecture": "llama",
            "parameters": 132,
            "dtype": "F16",
            "quantisation": None,
            "context_length": 4096,
            "tensor_count": 2,
        }
        assert files.json()["items"][0]["facts"] == up.json()["facts"]
        assert whole.json()["facts"] == moved.json()["facts"] == up.json()["facts"]

    @pytest.mark.parametrize(
        ("path", "content", "code", "reason"),
        [
            ("model.gguf", make_gguf()[:-1], "lying-header", "outside of the file"),
            ("data.zip", make_zip({"../up": b"x"}), "archive-refused", "leads out of the folder"),
        ],
    )
    async def test_what_lies_or_harms_is_a_422_that_says_why(
        self, api: httpx.AsyncClient, path: str, content: bytes, code: str, reason: str
    ) -> None:
        version = await make_version(api)

        answer = await api.put(f"{version}/files/{path}", content=content)

        assert (answer.status_code, answer.json()["code"]) == (422, code)
        assert reason in answer.json()["detail"]
        assert (await api.get(f"{version}/files")).json()["items"] == []

    async def test_pickles_need_leave_that_developers_cannot_give(
        self, developer: Person, api: httpx.AsyncClient
    ) -> None:
        version = await make_version(api)

        refused = await api.put(f"{version}/files/model.pt", content=PICKLE)
        denied = await api.put(
            "model-settings", json={"allows_pickle": True}, headers=developer.headers
        )
        told = await api.put("model-settings", json={"allows_pickle": True})
        taken = await api.put(f"{version}/files/model.pt", content=PICKLE)

        assert (refused.status_code, refused.json()["code"]) == (415, "pickle-refused")
        assert denied.status_code == 403
        assert told.json() == (await api.get("model-settings")).json() == {"allows_pickle": True}
        assert taken.status_code == 201
        assert taken.json()["facts"]["format"] == "pickle"
