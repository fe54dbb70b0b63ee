"""What other contexts may know of the registry."""

from typing import Literal, NewType, TypeAlias
from uuid import UUID

ModelId = NewType("ModelId", UUID)
VersionId = NewType("VersionId", UUID)

Framework: TypeAlias = Literal["gguf", "safetensors", "pytorch", "onnx", "tensorflow", "other"]
"""What a model's files are made for."""

VersionStatus: TypeAlias = Literal[
    "pending", "uploading", "validating", "ready", "deprecated", "archived", "failed"
]
"""Where a version is in its life; its files are fixed from `ready` on."""
