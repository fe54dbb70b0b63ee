"""Hands the context's services to its routes."""

from typing import Annotated, cast

from fastapi import Depends, Request

from maas.audit.application.exports import Exports as AuditExports
from maas.audit.application.proofs import EvidenceQueries
from maas.audit.application.queries import AuditQueries
from maas.audit.application.statistics import StatisticsService


async def _queries(request: Request) -> AuditQueries:
    return cast("AuditQueries", request.state.audit_queries)


async def _evidence(request: Request) -> EvidenceQueries:
    return cast("EvidenceQueries", request.state.audit_evidence)


Evidence = Annotated[EvidenceQueries, Depends(_evidence)]


async def _exports(request: Request) -> AuditExports:
    return cast("AuditExports", request.state.audit_exports)


Exports = Annotated[AuditExports, Depends(_exports)]
Queries = Annotated[AuditQueries, Depends(_queries)]


async def _statistics(request: Request) -> StatisticsService:
    return cast("StatisticsService", request.state.audit_statistics)


Statistics = Annotated[StatisticsService, Depends(_statistics)]
