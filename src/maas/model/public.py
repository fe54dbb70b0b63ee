"""What other contexts may know of the registry."""

from typing import Literal, NewType, TypeAlias
from uuid import UUID

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
