"""The settings of the local runtime, which answers from weights of the registry."""

from pathlib import Path

from pydantic import Field

from maas.shared.infrastructure.setting_sections import Section


class RuntimeSettings(Section):
    enabled: bool = True
    """Whether `maas up` runs one, where xllamacpp is installed and no `url` leads to another."""

    url: str | None = Field(None, pattern=r"^https?://[^/@\s]+/?$")
    memory_bytes: int | None = Field(None, ge=64 * 1024**2)
    max_models: int = Field(4, ge=1, le=256)
    cache_dir: Path | None = None
    cache_bytes: int = Field(64 * 1024**3, ge=1024**2)
    idle_minutes: int = Field(30, ge=0, le=43_200)
    context_length: int = Field(4096, ge=256, le=10_000_000)
    answers_at_once: int = Field(2, ge=1, le=256)
    threads: int | None = Field(None, ge=1, le=1024)
    load_seconds: int = Field(120, ge=1, le=3600)
