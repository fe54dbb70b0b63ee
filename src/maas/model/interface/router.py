"""The routers of the registry, to be served under `/api/v1`."""

from typing import Final

from maas.model.interface import (
    aliases,
    files,
    grants,
    models,
    provider_checks,
    provider_credentials,
    provider_grants,
    provider_models,
    provider_prices,
    providers,
    search,
    settings,
    uploads,
    versions,
)

routers: Final = (
    # Before models, whose ids would take `facets` for one of them.
    search.router,
    models.router,
    grants.router,
    versions.router,
    files.router,
    aliases.router,
    uploads.router,
    settings.router,
    providers.router,
    provider_credentials.router,
    provider_grants.router,
    provider_checks.router,
    provider_models.router,
    provider_prices.router,
)
