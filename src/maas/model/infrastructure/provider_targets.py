"""Which base URLs suppliers may have: the `TargetCheck` port."""

from typing import Final

from yarl import URL

from maas.model.domain.provider import MAX_BASE_URL_CHARS, Target, TargetRefusedError
from maas.shared.infrastructure.outgoing_targets import RefusedTargetError, Targets
from maas.shared.infrastructure.settings import OutgoingSettings

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


class SupplierTargets:
    """Judges with the operator's list for an operator alone, and keeps what the sender will read.

    What is checked is kept in the checking parser's own spelling: two parsers that disagree could
    send a key to one host and compare another.
    """

    def __init__(self, settings: OutgoingSettings) -> None:
        self._listed = Targets.of(settings)
        self._public = Targets(ports=self._listed.ports)

    def __call__(self, url: str, *, is_operator: bool) -> Target:
        targets = self._listed if is_operator else self._public
        if len(url) > MAX_BASE_URL_CHARS:
            raise TargetRefusedError(f"A base URL has at most {MAX_BASE_URL_CHARS} characters.")
        if "?" in url:
            raise TargetRefusedError("Leave out the part from ? on: paths are added to the URL.")
        try:
            checked = targets.check(url)
        except RefusedTargetError as exc:
            raise TargetRefusedError(exc.message) from None
        return Target(
            base_url=_origin(checked) + checked.raw_path.rstrip("/"),
            reach="private" if targets.is_private(checked) else "public",
        )


def _origin(url: URL) -> str:
    port = "" if url.port == _DEFAULT_PORTS[url.scheme] else f":{url.port}"
    return f"{url.scheme}://{url.host_subcomponent}{port}"
