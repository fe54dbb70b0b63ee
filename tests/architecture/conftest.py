import pytest
from fastapi import FastAPI

from maas.main import create_app
from maas.shared.infrastructure.settings import load_settings


@pytest.fixture(scope="session")
def app() -> FastAPI:
    """The whole application, built and never started: no server is needed to read its routes."""
    return create_app(
        load_settings(
            environment="test",
            secret_key="architecture-tests-0123456789-abcdefghijklmnopqrstuvwxyz",
            database={"url": "postgresql+asyncpg://nobody@localhost:1/none"},
            redis={"url": "redis://localhost:1/0"},
        )
    )
