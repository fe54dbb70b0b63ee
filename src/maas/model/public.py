"""What other contexts may know of the registry."""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NewType, TypeAlias
from typing import Protocol as Port
from uuid import UUID

from maas.shared.domain.ids import TenantId
from maas.shared.domain.pricing import Prices
from maas.shared.domain.principal import Principal

ModelId = NewType("ModelId", UUID)
VersionId = NewType("VersionId", UUID)

Framework: TypeAlias = Literal["gguf", "safetensors", "pytorch", "onnx", "tensorflow", "other"]
"""What a model's files are made for."""

Visibility: TypeAlias = Literal["private", "tenant", "public"]
"""Who reads a model: its owner, its tenant and those it is granted to, or every tenant."""

SourceKind: TypeAlias = Literal["uploaded", "fine-tuned-from", "imported-from"]
"""Where a version comes from."""

VersionStatus: TypeAlias = Literal[
    "pending", "uploading", "validating", "ready", "deprecated", "archived", "failed"
]
"""Where a version is in its life; its files are fixed from `ready` on."""

WRITE_MODELS = "model:write"
"""Held by who makes models and versions, and gives them files."""

MANAGE_MODELS = "model:manage"
"""Held by who sees the tenant's private models, and decides for their owners who sees them."""

ProviderId = NewType("ProviderId", UUID)
ProviderModelId = NewType("ProviderModelId", UUID)
PriceId = NewType("PriceId", UUID)

ProviderKind: TypeAlias = Literal[
    "openai",
    "openai-compatible",
    "azure",
    "anthropic",
    "deepseek",
    "qwen",
    "openrouter",
    "vllm",
    "sglang",
    "xinference",
    "ollama",
    "llama.cpp",
]
"""Whose API a supplier speaks."""

ProviderStatus: TypeAlias = Literal["active", "disabled"]

CheckOutcome: TypeAlias = Literal[
    "ok",
    "address-wrong",
    "answer-odd",
    "answer-too-large",
    "certificate-refused",
    "connection-refused",
    "credential-missing",
    "credential-refused",
    "credential-unreadable",
    "credit-used-up",
    "model-unknown",
    "name-unresolved",
    "no-public-address",
    "not-permitted",
    "platform-busy",
    "rate-limited",
    "redirected",
    "supplier-failed",
    "target-refused",
    "timed-out",
    "tls-failed",
]
"""What came of asking a supplier."""

HealthStatus: TypeAlias = Literal["unknown", "healthy", "unhealthy"]

Capability: TypeAlias = Literal["chat", "completions", "embeddings"]
"""What a supplier's model can be asked for, by the names of OpenAI's routes."""

Protocol: TypeAlias = Literal["openai", "anthropic"]
"""The wire format of a supplier's calls."""

Reach: TypeAlias = Literal["public", "private"]
"""Where a supplier may lie: at public addresses, or also at a target of the operator's list."""

MANAGE_SUPPLIERS = "platform:suppliers"
"""Held by who may connect what lies at the operator's private targets."""

Uncallable: TypeAlias = Literal[
    "not-found", "disabled", "credential-missing", "credential-unreadable", "not-ready"
]
"""Why nothing can be called: `not-found` is deleted, never there, or not this tenant's to see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentPrice:
    """What a supplier's model costs now, in one currency."""

    id: PriceId
    prices: Prices


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppliedModel:
    """All that a call of a supplier's model needs; `headers` carry the key, and are never kept.

    `urls` has what the model can be asked for; `prices` are by currency, in its order.
    """

    id: ProviderModelId
    provider_id: ProviderId
    provider_name: str
    kind: ProviderKind
    protocol: Protocol
    reach: Reach
    name: str
    urls: Mapping[Capability, str]
    headers: Mapping[str, str] = field(repr=False)
    prices: Sequence[CurrentPrice]
    context_length: int | None
    max_output_tokens: int | None


class SuppliedModels(Port):
    """Suppliers' models as a tenant may call them: its own, and those granted to it."""

    async def find_visible(
        self, tenant_id: TenantId, model_ids: Collection[ProviderModelId]
    ) -> frozenset[ProviderModelId]:
        """Tell which of them the tenant sees, whether they can be called or not."""
        ...

    async def read(
        self, tenant_id: TenantId, model_ids: Collection[ProviderModelId]
    ) -> Mapping[ProviderModelId, SuppliedModel | Uncallable]:
        """Read each as it is now, or tell why it cannot be called.

        Address and key of one are read as they were at one moment.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionReference:
    """A version by its own name, or whichever an alias points at: one of the two is given."""

    model_id: ModelId
    version: str | None = None
    alias: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedVersion:
    """A version that may answer; `digest` is that of the list of its files."""

    model_id: ModelId
    model_name: str
    id: VersionId
    version: str
    digest: str
    framework: Framework
    context_length: int | None


class ServedVersions(Port):
    """Versions of the registry as a tenant may call them: of its own models, granted, or public."""

    async def find_visible(
        self, caller: Principal, wanted: Collection[VersionReference]
    ) -> frozenset[VersionReference]:
        """Tell which of them the caller sees; an alias that points nowhere is not there."""
        ...

    async def read(
        self, tenant_id: TenantId, wanted: Collection[VersionReference]
    ) -> Mapping[VersionReference, ServedVersion | Uncallable]:
        """Read each as it is now, or tell why it cannot be called."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """A file of a version: its path there, its size in bytes, its SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What a version that may answer is made of."""

    version_id: VersionId
    model_name: str
    version: str
    files: Sequence[WeightFile]


class VersionWeights(Port):
    """Files of versions, for what runs them: whether the caller may is settled before."""

    async def find(self, version_id: VersionId) -> Weights | None:
        """Look up a version that is ready or deprecated, of a model that is not deleted.

        Raises:
            UnavailableError: PostgreSQL does not answer.
        """
        ...

    def read(self, file: WeightFile) -> AsyncGenerator[bytes, None]:
        """Give a file's bytes, each checked against its part's digest before.

        Raises:
            UnavailableError: the store does not answer, or its bytes are not what was stored.
        """
        ...
