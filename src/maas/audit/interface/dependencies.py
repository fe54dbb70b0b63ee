"""Hands the context's services to its routes and tasks."""

from collections.abc import Mapping
from typing import Annotated, cast

from celery import Task
from fastapi import Depends, Request

from maas.audit.application.flush import FlushRunner
from maas.audit.application.queries import AuditQueries

FLUSH_SERVICE = "audit_flush"
"""The name under which the worker's app keeps the flush in `services`."""


async def _queries(request: Request) -> AuditQueries:
    return cast("AuditQueries", request.state.audit_queries)


Queries = Annotated[AuditQueries, Depends(_queries)]


def flush_of(task: "Task[..., object]") -> FlushRunner:
    services: Mapping[str, object] = vars(task.app)["services"]
    return cast("FlushRunner", services[FLUSH_SERVICE])
