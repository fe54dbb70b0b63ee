"""The settings of traces."""

from importlib.util import find_spec

from pydantic import Field, field_validator

from maas.shared.infrastructure.setting_sections import CommaList, Section, name_a_port


class TracingSettings(Section):
    """Where traces go, if anywhere; without an endpoint nothing of them is even imported."""

    endpoint: str | None = Field(None, pattern=r"^https?://[^\s@?#]+$")
    sample_ratio: float = Field(1.0, ge=0, le=1)
    """The share of requests and tasks that are traced."""

    service_name: str | None = Field(None, min_length=1, max_length=100)
    propagate_to: CommaList = ()
    """Who is told the trace's id: exact `host:port` of suppliers or runtimes."""

    @field_validator("endpoint")
    @classmethod
    def _can_be_served(cls, value: str | None) -> str | None:
        names = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
        if value is not None and not all(_is_installed(name) for name in names):
            message = "traces need the extra `otel`: pip install '.[otel]' in a clone"
            raise ValueError(message)
        return value

    @field_validator("propagate_to")
    @classmethod
    def _name_a_port(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return name_a_port(value)


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
