"""The types of suppliers there are: how each is called, as data.

Where two suppliers differ, it is in a field of `ProviderType`, and nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from maas.model.public import Capability, Protocol, ProviderKind

KeyHeader: TypeAlias = Literal["Authorization", "x-api-key", "api-key"]
"""How the key goes: as a bearer token, or as it is."""

CALL_PATHS: Final[Mapping[Protocol, Mapping[Capability, str]]] = MappingProxyType(
    {
        "openai": {
            "chat": "/chat/completions",
            "completions": "/completions",
            "embeddings": "/embeddings",
        },
        "anthropic": {"chat": "/v1/messages"},
    }
)
"""Where each kind of call goes, after the base URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderType:
    """One type. Paths follow the base URL as it is; `base_url` is `None` for what one runs oneself.

    `key_check_path` is asked beside the list of models where that list is public, for it says
    nothing about a key. `lists_what_is_called` is false where models are called by names of their
    own. `note` says what people get wrong about base URLs and keys.
    """

    type: ProviderKind
    title: str
    protocol: Protocol = "openai"
    base_url: str | None = None
    base_url_example: str
    key_header: KeyHeader = "Authorization"
    needs_key: bool = True
    headers: tuple[tuple[str, str], ...] = ()
    uses_api_version: bool = False
    models_path: str = "/models"
    key_check_path: str | None = None
    lists_what_is_called: bool = True
    keys_url: str | None = None
    note: str | None = None

    def key_headers(self, key: str | None) -> dict[str, str]:
        """Make the headers that every call carries, the key among them if there is one."""
        headers = dict(self.headers)
        if key is not None:
            headers[self.key_header] = (
                f"Bearer {key}" if self.key_header == "Authorization" else key
            )
        return headers


PROVIDER_TYPES: Final[Mapping[ProviderKind, ProviderType]] = MappingProxyType(
    {
        each.type: each
        for each in (
            ProviderType(
                type="openai",
                title="OpenAI",
                base_url="https://api.openai.com/v1",
                base_url_example="https://eu.api.openai.com/v1",
                keys_url="https://platform.openai.com/api-keys",
                note="A project that keeps its data in a region has that region's base URL.",
            ),
            ProviderType(
                type="openai-compatible",
                title="Any other with OpenAI's API",
                base_url_example="https://models.example.com/v1",
                needs_key=False,
                note="The base URL is what OpenAI's own client takes; it mostly ends with /v1.",
            ),
            ProviderType(
                type="azure",
                title="Azure OpenAI",
                base_url_example="https://my-resource.openai.azure.com/openai/v1",
                key_header="api-key",
                uses_api_version=True,
                lists_what_is_called=False,
                keys_url="https://ai.azure.com",
                note=(
                    "The base URL ends with /openai/v1. There no API version is needed; `preview` "
                    "lets in what is not final yet. Models are called by their deployments' names."
                ),
            ),
            ProviderType(
                type="anthropic",
                title="Anthropic",
                protocol="anthropic",
                base_url="https://api.anthropic.com",
                base_url_example="https://anthropic.example.com",
                key_header="x-api-key",
                headers=(("anthropic-version", "2023-06-01"),),
                models_path="/v1/models?limit=1000",
                keys_url="https://platform.claude.com/settings/keys",
                note="The base URL is without /v1.",
            ),
            ProviderType(
                type="deepseek",
                title="DeepSeek",
                base_url="https://api.deepseek.com",
                base_url_example="https://api.deepseek.com",
                keys_url="https://platform.deepseek.com/api_keys",
            ),
            ProviderType(
                type="qwen",
                title="Qwen (Alibaba Cloud Model Studio)",
                base_url="https://dashscope.aliyuncs.com/compatible-mode/v1",
                base_url_example="https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
                keys_url="https://bailian.console.aliyun.com",
                note=(
                    "A key is good in its own region alone: set the base URL of the region, or of "
                    "the workspace, the key was made in."
                ),
            ),
            ProviderType(
                type="openrouter",
                title="OpenRouter",
                base_url="https://openrouter.ai/api/v1",
                base_url_example="https://openrouter.ai/api/v1",
                key_check_path="/key",
                keys_url="https://openrouter.ai/settings/keys",
            ),
            ProviderType(
                type="vllm",
                title="vLLM",
                base_url_example="http://vllm.internal:8000/v1",
                needs_key=False,
                note="A key is needed if it was started with --api-key.",
            ),
            ProviderType(
                type="sglang",
                title="SGLang",
                base_url_example="http://sglang.internal:30000/v1",
                needs_key=False,
                note="A key is needed if it was started with --api-key.",
            ),
            ProviderType(
                type="xinference",
                title="Xinference",
                base_url_example="http://xinference.internal:9997/v1",
                needs_key=False,
                note="A key is needed if it was started with --auth-config.",
            ),
            ProviderType(
                type="ollama",
                title="Ollama",
                base_url_example="http://ollama.internal:11434/v1",
                needs_key=False,
                note="The base URL ends with /v1, not with /api.",
            ),
            ProviderType(
                type="llama.cpp",
                title="llama.cpp server",
                base_url_example="http://llama.internal:8080/v1",
                needs_key=False,
                note="A key is needed if it was started with --api-key.",
            ),
        )
    }
)
