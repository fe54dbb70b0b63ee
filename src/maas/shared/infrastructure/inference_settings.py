"""Settings of calls to models."""

from pydantic import Field

from maas.shared.infrastructure.setting_sections import Section


class InferenceSettings(Section):
    max_body_bytes: int = Field(32 * 1024**2, ge=1024, le=1024**3)
    max_calls: int = Field(1000, ge=1, le=100_000)
    default_max_tokens: int = Field(4096, ge=1, le=1_000_000)
    answer_cache_bytes: int = Field(64 * 1024**2, ge=0, le=1024**4)
    health_check_seconds: float = Field(5, ge=0, le=3600)
