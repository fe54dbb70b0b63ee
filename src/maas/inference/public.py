"""What other contexts may know of inference."""

from typing import Final, Literal, NewType, TypeAlias
from uuid import UUID

DeploymentId = NewType("DeploymentId", UUID)
TargetId = NewType("TargetId", UUID)

CallKind: TypeAlias = Literal["chat", "completions", "embeddings"]
"""What a call asks for, by the names of OpenAI's routes."""

MANAGE_DEPLOYMENTS: Final = "platform:deployments"
"""Held by who may offer a deployment to other tenants."""

CALL_MODELS: Final = "inference:call"
"""Held by who may call deployments."""
