"""The services of identity, as routes ask for them."""

from typing import Annotated, cast

from fastapi import Depends, Request

from maas.user.application.accounts import AccountService
from maas.user.application.ports import UserQueries
from maas.user.application.sign_in import SignInService


async def _sign_ins(request: Request) -> SignInService:
    return cast("SignInService", request.scope["state"]["sign_ins"])


async def _accounts(request: Request) -> AccountService:
    return cast("AccountService", request.scope["state"]["accounts"])


def queries_of(request: Request) -> UserQueries:
    """Hand the queries to a route too hot for a dependency."""
    return cast("UserQueries", request.scope["state"]["user_queries"])


async def _queries(request: Request) -> UserQueries:
    return queries_of(request)


SignIns = Annotated[SignInService, Depends(_sign_ins)]
Accounts = Annotated[AccountService, Depends(_accounts)]
Queries = Annotated[UserQueries, Depends(_queries)]
