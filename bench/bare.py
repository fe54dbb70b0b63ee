"""The floor every row is compared with: one FastAPI route that does nothing."""

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


class Alive(BaseModel):
    status: str


@app.get("/bare")
async def bare() -> Alive:
    return Alive(status="ok")
