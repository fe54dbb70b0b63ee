"""The permissions there are: those that routes ask for, and what they let one do."""

from collections.abc import Sequence

from fastapi import APIRouter, Request

from maas.shared.domain.errors import InvalidInputError
from maas.shared.interface.pagination import PageRead
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.routes import walk_routes
from maas.shared.interface.security import requires
from maas.user.domain.role import PermissionPattern
from maas.user.interface.admin_schemas import PermissionRead
from maas.user.public import BUILT_IN_ROLES

router = APIRouter(prefix="/admin/permissions", tags=["admin"], route_class=StrictRoute)

DESCRIPTIONS = {
    "alert:write": "Say what raises alerts, and where they are sent.",
    "api_key:read": "See one's own API keys; everybody may.",
    "api_key:write": "Make, change, rotate and delete one's own API keys; everybody may.",
    "audit:export": "Export the tenant's audit trail, with proof.",
    "audit:read": "Read the tenant's audit trail.",
    "audit:verify": "See what was signed over the whole trail: checkpoints, no events.",
    "capture:read": "Read kept prompts and answers of the tenant's calls.",
    "deployment:read": "See what the tenant may call, and what answers for its own names.",
    "deployment:write": "Give names to what answers calls, change and delete them.",
    "inference:call": "Call models through `/v1`, and read the receipts of one's own calls.",
    "model:read": "See models, versions and files, and download them.",
    "model:write": "Register models, upload and promote versions.",
    "model:delete": "Delete models, versions and files, and restore models.",
    "model:configure": "Say what the tenant lets into its versions, pickles for one.",
    "model:manage": "See private models, hand models over, and say who sees them.",
    "platform:account-write": "Change accounts that belong to several tenants.",
    "platform:deployments": "Offer deployments to other tenants: grant them, or make them public.",
    "platform:member-read": "See who belongs to any tenant.",
    "platform:member-write": "Join accounts to any tenant, and take them out.",
    "platform:metrics": "Read the platform's metrics from another machine.",
    "platform:quota-read": "See what any tenant may use, and uses.",
    "platform:quota-write": "Set what a tenant may use.",
    "platform:suppliers": "Connect suppliers at the operator's private targets, and change them.",
    "platform:tenant-read": "See all tenants.",
    "platform:tenant-write": "Make, change, suspend and delete tenants.",
    "provider:read": "See the tenant's suppliers, their models and prices.",
    "provider:write": "Connect, change, grant and delete suppliers, and set their keys.",
    "quota:read": "See the quotas of the tenant, its people and its programs.",
    "quota:write": "Set the quotas of the tenant's people and programs, but not one's own.",
    "role:grant": "Give and take roles, within one's own rights.",
    "role:read": "See the tenant's roles and the permissions there are.",
    "role:write": "Make, change and delete roles, within one's own rights.",
    "self:read": "See one's own account; everybody may.",
    "self:write": "Change one's own account; everybody may.",
    "service_account:read": "See the tenant's service accounts and their keys.",
    "service_account:write": "Make, change and delete service accounts and their keys, within "
    "one's own rights.",
    "usage:read": "See what the whole tenant used, and what it cost.",
    "user:delete": "Remove people from the tenant.",
    "user:read": "See and export the tenant's people.",
    "user:write": "Make, change, suspend and restore people, and reset passwords.",
}
"""What each permission lets one do; a test finds those that are missing here."""

BESIDE_ROUTES = frozenset(
    {
        "model:manage",
        "platform:account-write",
        "platform:deployments",
        "platform:metrics",
        "platform:suppliers",
    }
)
"""Asked for within a use case, whatever the route asks; or of callers from elsewhere alone."""


class UnknownScopesError(InvalidInputError):
    code = "unknown-scope"
    title = "Not a permission there is"

    def __init__(self, places: Sequence[int]) -> None:
        # By their places: what was sent is not told again.
        which = ", ".join(str(place + 1) for place in places)
        super().__init__(
            f"Scopes that are no permission there is, counted from 1: {which}. "
            "`GET /api/v1/admin/permissions` lists them; `*` stands for either part.",
            loc=("body", "scopes", places[0]),
        )


def _known(request: Request) -> frozenset[str]:
    asked = {name for route in walk_routes(request.app) for name in route.permissions}
    return frozenset(asked | BESIDE_ROUTES)


def check_scopes(request: Request, scopes: Sequence[PermissionPattern]) -> None:
    """Refuse scopes that name nothing there is: a slip of the hand would be found much later.

    What the built-in roles name is known as well: it may come with a later version.

    Raises:
        UnknownScopesError.
    """
    known = _known(request).union(*BUILT_IN_ROLES.values()) - {"*:*"}
    resources, actions = ({name.split(":")[part] for name in known} for part in (0, 1))
    unknown = []
    for place, scope in enumerate(scopes):
        resource, _, action = scope.value.partition(":")
        is_wild = (resource in resources and action == "*") or (
            resource == "*" and action in actions
        )
        if not (is_wild or scope.value in known or scope.value == "*:*"):
            unknown.append(place)
    if unknown:
        raise UnknownScopesError(unknown)


@router.get(
    "",
    dependencies=[requires("role:read")],
    summary="List the permissions there are",
    description=(
        "All on one page, with what each lets one do. They come with the platform's version "
        "and cannot be made."
    ),
)
async def list_permissions(request: Request) -> PageRead[PermissionRead]:
    items = [
        PermissionRead(name=name, description=DESCRIPTIONS.get(name, ""))
        for name in sorted(_known(request))
    ]
    return PageRead[PermissionRead](items=items, next_cursor=None, total=None)
