"""The routers of deployments, to be served under `/api/v1`."""

from typing import Final

from maas.inference.interface import (
    captures,
    deployment_grants,
    deployment_metrics,
    deployments,
    receipts,
)

routers: Final = (
    deployments.router,
    deployment_grants.router,
    deployment_metrics.router,
    captures.router,
    receipts.router,
)
