"""Rows of the registry's routes."""

import base64
import hashlib
from typing import Any

from maas.shared.domain.ids import new_id
from tests.e2e.routes.making import Make, of_nobody, plain
from tests.e2e.routes.world import ANSWERED, API, SOME, Case, World

FILE = b"GGUF" + bytes(60)


async def create_model(world: World) -> Case:
    body = {"name": f"acme/{world.name()}", "framework": "gguf"}
    return Case(caller=world.root, json=body, resource=("model", ANSWERED))


def on_model(body: object = None, *, makes: str | None = None) -> Make:
    async def make(world: World) -> Case:
        case = await create_model(world)
        made = await world.made("/models", case.json)
        return Case(
            caller=world.root,
            values={"model_id": made["id"]},
            missing={"model_id": str(new_id())},
            json=body,
            resource=("model", made["id"]) if makes is None else (makes, ANSWERED),
        )

    return make


def under_model(*, put: bool = False, **values: str) -> Make:
    """Make a case of what a model has under names of the caller's own; put there first, if so."""

    async def make(world: World) -> Case:
        case = await on_model()(world)
        if put:
            path = "/".join(("tags" if "tag" in values else "grants", *values.values()))
            url = f"{API}/models/{case.values['model_id']}/{path}"
            there = await world.client.put(url, headers=world.root.headers)
            assert there.is_success, there.text
        return Case(
            caller=world.root,
            values={**case.values, **values},
            missing={**case.missing, **values},
            resource=case.resource,
        )

    return make


async def deleted_model(world: World) -> Case:
    case = await on_model()(world)
    gone = await world.client.delete(
        f"{API}/models/{case.values['model_id']}", headers=world.root.headers
    )
    assert gone.status_code == 204, gone.text
    return case


def on_version(body: object = None) -> Make:
    async def make(world: World) -> Case:
        case = await on_model()(world)
        model = case.values["model_id"]
        made = await world.made(f"/models/{model}/versions", {"version": "1.0.0"})
        return Case(
            caller=world.root,
            values={"model_id": model, "version": "1.0.0"},
            missing={"model_id": str(new_id()), "version": "1.0.0"},
            json=body,
            resource=("model_version", made["id"]),
        )

    return make


async def upload(world: World) -> Case:
    case = await on_version()(world)
    return Case(
        caller=world.root,
        values={**case.values, "path": "weights/m.bin"},
        missing={**case.missing, "path": "weights/m.bin"},
        content=FILE,
        headers={"X-Content-SHA256": hashlib.sha256(FILE).hexdigest()},
        resource=("model_file", SOME),
    )


async def on_file(world: World) -> Case:
    case = await upload(world)
    values = case.values
    path = f"{API}/models/{values['model_id']}/versions/1.0.0/files/{values['path']}"
    put = await world.client.put(path, content=FILE, headers=world.root.headers)
    assert put.status_code == 201, put.text
    return Case(
        caller=world.root, values=values, missing=case.missing, resource=("model_file", SOME)
    )


def on_alias(body: object = None, *, is_there: bool = True) -> Make:
    """Make a case of an alias of a version that is ready."""

    async def make(world: World) -> Case:
        case = await on_file(world)
        values = {"model_id": case.values["model_id"], "alias": "production"}
        path = f"/models/{values['model_id']}"
        moved = await world.client.post(
            f"{API}{path}/versions/1.0.0/transition",
            json={"status": "ready"},
            headers=world.root.headers,
        )
        assert moved.status_code == 200, moved.text
        if is_there:
            put = await world.client.put(
                f"{API}{path}/aliases/production",
                json={"version": "1.0.0"},
                headers=world.root.headers,
            )
            assert put.status_code == 201, put.text
        return Case(
            caller=world.root,
            values=values,
            missing={"model_id": str(new_id()), "alias": "production"},
            json=body,
            resource=("model_alias", SOME),
        )

    return make


TUS = {"Tus-Resumable": "1.0.0"}
CHUNK = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}


async def create_upload(world: World) -> Case:
    case = await on_version()(world)
    wanted = {**case.values, "path": "weights/m.bin"}
    pairs = [f"{key} {base64.b64encode(text.encode()).decode()}" for key, text in wanted.items()]
    return Case(
        caller=world.root,
        headers={**TUS, "Upload-Length": str(len(FILE)), "Upload-Metadata": ",".join(pairs)},
        resource=("model_upload", SOME),
    )


def on_upload(**parts: Any) -> Make:
    async def make(world: World) -> Case:
        case = await create_upload(world)
        headers = {**world.root.headers, **case.headers}
        made = await world.client.post(f"{API}/uploads", headers=headers)
        assert made.status_code == 201, made.text
        return Case(
            caller=world.root,
            values={"upload_id": made.headers["location"].rpartition("/")[2]},
            missing={"upload_id": str(new_id())},
            **{"headers": TUS, **parts},
        )

    return make


MODEL_ROWS: dict[str, Make] = {
    "GET /models": plain(),
    "POST /models": create_model,
    "GET /models/{model_id}": on_model(),
    "PUT /models/{model_id}": on_model({"task": "chat"}),
    "DELETE /models/{model_id}": on_model(),
    "POST /models/{model_id}/restore": deleted_model,
    "PUT /models/{model_id}/tags/{tag}": under_model(tag="chat"),
    "DELETE /models/{model_id}/tags/{tag}": under_model(put=True, tag="chat"),
    "GET /models/{model_id}/grants": on_model(),
    "PUT /models/{model_id}/grants/{tenant_id}": under_model(tenant_id=str(new_id())),
    "DELETE /models/{model_id}/grants/{tenant_id}": under_model(put=True, tenant_id=str(new_id())),
    "GET /models/{model_id}/versions": on_model(),
    "POST /models/{model_id}/versions": on_model({"version": "1.0.0"}, makes="model_version"),
    "GET /models/{model_id}/versions/{version}": on_version(),
    "PUT /models/{model_id}/versions/{version}": on_version({"description": "Mine"}),
    "DELETE /models/{model_id}/versions/{version}": on_version(),
    "POST /models/{model_id}/versions/{version}/transition": on_version({"status": "uploading"}),
    "GET /models/{model_id}/versions/{version}/transitions": on_version(),
    "GET /models/{model_id}/versions/{version}/files": on_version(),
    "PUT /models/{model_id}/versions/{version}/files/{path}": upload,
    "GET /models/{model_id}/versions/{version}/files/{path}": on_file,
    "DELETE /models/{model_id}/versions/{version}/files/{path}": on_file,
    "GET /models/facets": plain(),
    "GET /model-versions": plain(),
    "GET /models/{model_id}/aliases": on_model(),
    "GET /models/{model_id}/aliases/{alias}": on_alias(),
    "PUT /models/{model_id}/aliases/{alias}": on_alias({"version": "1.0.0"}, is_there=False),
    "DELETE /models/{model_id}/aliases/{alias}": on_alias(),
    "GET /models/{model_id}/aliases/{alias}/history": on_alias(),
    "GET /model-settings": plain(),
    "PUT /model-settings": plain(json={"allows_pickle": False}, resource=("model_settings", SOME)),
    "OPTIONS /uploads": of_nobody,
    "POST /uploads": create_upload,
    "GET /uploads/{upload_id}": on_upload(),
    "PATCH /uploads/{upload_id}": on_upload(
        headers=CHUNK, content=FILE, resource=("model_file", SOME)
    ),
    "DELETE /uploads/{upload_id}": on_upload(resource=("model_upload", SOME)),
}
