"""What the trail is watched for, as the tenant has it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

from fastapi import APIRouter, Path, Response
from pydantic import ConfigDict, Field, StrictInt, StringConstraints

from maas.audit.application.rules import RuleChanges, RuleDetails
from maas.audit.domain.rules import MAX_ROLES, InvalidRuleParameterError, RuleNotFoundError
from maas.audit.interface.watch_dependencies import RuleReads, Rules
from maas.audit.public import audited
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.etags import IfMatch, etag_of
from maas.shared.interface.pagination import PageRead
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.shared.interface.types import MAX_INT, Instant, ReadModel, StrictModel

router = APIRouter(prefix="/audit/rules", tags=["audit"], route_class=StrictRoute)

_ShortText = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=64)]
_Positive = Annotated[StrictInt, Field(ge=1, le=MAX_INT)]
_ClockTime = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-2]\d:[0-5]\d$")]
RuleNamePath = Annotated[str, Path(max_length=64, examples=["failed-login-burst"])]


def _absent() -> Any:
    """Stand in for a field that was not sent; it is never looked at."""


class RuleRead(ReadModel):
    """`updated_at` is null while the rule is as it came."""

    model_config = ConfigDict(
        from_attributes=True,
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "name": "failed-login-burst",
                    "description": "So many failed sign-ins to one account, or from one address.",
                    "is_enabled": True,
                    "parameters": {"failures": 5, "minutes": 60},
                    "updated_at": None,
                    "version": 0,
                }
            ]
        },
    )

    name: str
    description: str
    is_enabled: bool
    parameters: Mapping[str, int | str | Sequence[str]]
    updated_at: Instant | None
    version: int


class ParametersUpdate(StrictModel):
    """The parameters of all rules: each takes its own. Those that are absent stay as they are."""

    failures: _Positive = Field(default_factory=_absent)
    minutes: _Positive = Field(default_factory=_absent)
    addresses: _Positive = Field(default_factory=_absent)
    hours: _Positive = Field(default_factory=_absent)
    deletions: _Positive = Field(default_factory=_absent)
    percent: _Positive = Field(default_factory=_absent)
    roles: Annotated[list[_ShortText], Field(min_length=1, max_length=MAX_ROLES)] = Field(
        default_factory=_absent, description="Names of roles that count as an administrator's."
    )
    time_zone: _ShortText = Field(
        default_factory=_absent, description="A name of the IANA database, as in Asia/Shanghai."
    )
    since: _ClockTime = Field(default_factory=_absent)
    until: _ClockTime = Field(default_factory=_absent)


class RuleUpdate(StrictModel):
    """Fields that are absent stay as they are."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"is_enabled": True, "parameters": {"failures": 3}}]}
    )

    is_enabled: bool = Field(default_factory=_absent)
    parameters: ParametersUpdate = Field(default_factory=_absent)


def _render(rule: RuleDetails, response: Response) -> RuleRead:
    response.headers["ETag"] = etag_of(rule.version)
    return RuleRead.model_validate(rule)


@router.get(
    "",
    dependencies=[requires("audit:read")],
    summary="List the rules that raise alerts",
    description="All on one page, with what the tenant set of each, or what it comes with.",
)
async def list_rules(caller: Caller, rules: RuleReads) -> PageRead[RuleRead]:
    found = await rules.list_rules(caller.tenant_id)
    items = [RuleRead.model_validate(rule) for rule in found]
    return PageRead[RuleRead](items=items, next_cursor=None, total=None)


@router.get(
    "/{name}",
    dependencies=[requires("audit:read")],
    summary="Read a rule",
    description="What it looks for, whether it is on, and the values of its parameters.",
)
@may_refuse(RuleNotFoundError)
async def get_rule(
    name: RuleNamePath, caller: Caller, rules: RuleReads, response: Response
) -> RuleRead:
    return _render(await rules.get_rule(caller.tenant_id, name), response)


@router.put(
    "/{name}",
    dependencies=[requires("alert:write")],
    summary="Turn a rule on or off, or set its parameters",
    description=(
        "Only what is sent changes, parameters too; it holds for what is judged from then on. "
        "Numbers have bounds: a refusal names them. `night-activity` takes `since` and `until` as "
        "`22:00`, on the clocks of `time_zone`."
    ),
)
@audited("audit.rule_updated")
@may_refuse(RuleNotFoundError, InvalidRuleParameterError)
async def update_rule(
    name: RuleNamePath,
    body: RuleUpdate,
    caller: Caller,
    rules: Rules,
    if_match: IfMatch,
    response: Response,
) -> RuleRead:
    changes = cast("RuleChanges", body.model_dump(exclude_unset=True))
    rule = await rules.revise(caller, name, check=if_match.check, **changes)
    return _render(rule, response)
