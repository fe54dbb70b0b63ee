"""What `maas up` keeps running beside its servers."""

import pytest

from maas.commands.up import _wants_runtime
from maas.embedded.children import default_children
from maas.shared.infrastructure.setting_sources import GivenSettings


def names(runtime_port: int | None) -> list[str]:
    children = default_children(
        host="127.0.0.1", port=8000, api_workers=1, worker_concurrency=2, runtime_port=runtime_port
    )
    return [child.name for child in children]


def test_a_runtime_is_kept_running_where_there_is_a_port_for_it() -> None:
    assert names(None) == ["api", "worker", "beat"]
    assert names(4711) == ["api", "worker", "beat", "runtime"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, True),
        ({"MAAS_RUNTIME__ENABLED": "true"}, True),
        ({"MAAS_RUNTIME__ENABLED": "False"}, False),
        ({"MAAS_RUNTIME__ENABLED": "0"}, False),
        ({"MAAS_RUNTIME__URL": "http://10.0.0.5:8001"}, False),
    ],
)
def test_one_is_wanted_unless_it_is_elsewhere_or_nowhere(
    given: dict[str, str], *, wanted: bool
) -> None:
    assert _wants_runtime(GivenSettings({"environment": given})) is wanted
