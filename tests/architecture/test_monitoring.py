"""The dashboard, the alerts and their page name metrics that there are, by labels they have."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typing_extensions import override

from maas.audit.wiring import build_audit
from maas.inference.infrastructure.metrics import CallMetrics
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.metrics import Metrics
from maas.shared.infrastructure.settings import AuditSettings
from tests.architecture.inspection import ROOT

FOLDER = ROOT / "docs" / "monitoring"
PAGE = ROOT / "docs" / "operating" / "monitoring.md"
ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}

_METRIC = re.compile(r"\b(?P<name>maas_\w+)(?:\{(?P<labels>[^}]*)\})?")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")


class FakeDatabase:
    """Answers with a row that has any column, all of them 0."""

    async def fetchrow(self, *_asked: object) -> Mapping[str, float]:
        return AnyRow(float)


class AnyRow(defaultdict[str, float]):
    @override
    def __contains__(self, key: object) -> bool:
        return True


class FakeRedis:
    async def call(self, ask: Any) -> Any:
        return await ask(self)

    async def xlen(self, *_stream: object) -> int:
        return 0

    async def xrange(self, *_stream: object, **_wanted: object) -> list[object]:
        return []

    async def xinfo_consumers(self, *_group: object) -> list[dict[str, int]]:
        return [{"idle": 0}]


@pytest.fixture(scope="module")
def counted() -> dict[str, set[str]]:
    """Every series that processes count, with its labels."""
    found: dict[str, set[str]] = {}
    for registry in (Metrics().registry, CallMetrics().registry):
        for collector in registry._collector_to_names:
            labels = set(getattr(collector, "_labelnames", ()))
            for family in collector.collect():
                for ending in ENDINGS[family.type]:
                    found[family.name + ending] = labels | (
                        {"le"} if ending == "_bucket" else set()
                    )
    return found


@pytest.fixture
async def metrics(counted: dict[str, set[str]], tmp_path: Path) -> dict[str, set[str]]:
    """Those, and what is read at each scrape."""
    audit = build_audit(
        database=FakeDatabase(),  # type: ignore[arg-type]  # all that the figures ask for
        redis=FakeRedis(),  # type: ignore[arg-type]  # likewise
        clock=SystemClock(),
        settings=AuditSettings(),
        data_dir=tmp_path,
    )
    return counted | {f"maas_audit_{name}": set() for name in await audit.backlog()}


def expressions() -> dict[str, str]:
    """Every PromQL text, by where it stands."""
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
    alerts = {rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]}
    return alerts | dict(_asked(dashboard()))


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text("utf-8"))
    return read


def _asked(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


def strangers(texts: Mapping[str, str], metrics: Mapping[str, set[str]]) -> list[str]:
    """Name what is asked for and not there."""
    found = []
    for place, text in texts.items():
        for metric in _METRIC.finditer(text):
            if metric["name"] not in metrics:
                found.append(f"{place}: {metric['name']}")
            else:
                # Prometheus itself says which job and process a series is of.
                unknown = {*_LABEL.findall(metric["labels"] or "")} - metrics[metric["name"]]
                found += [
                    f"{place}: {metric['name']}{{{label}}}"
                    for label in sorted(unknown - {"job", "instance"})
                ]
    return found


def test_alerts_and_dashboard_ask_for_what_there_is(metrics: dict[str, set[str]]) -> None:
    texts = expressions()

    assert strangers(texts, metrics) == []
    assert len(texts) > 40


def test_every_metric_is_told_on_its_page_and_shown(metrics: dict[str, set[str]]) -> None:
    told = set(re.findall(r"`(maas_\w+)`", PAGE.read_text(encoding="utf-8")))
    shown = {metric["name"] for text in expressions().values() for metric in _METRIC.finditer(text)}
    families = {re.sub("_(?:bucket|sum|count)$", "", name) for name in metrics}

    assert sorted(families ^ told) == []
    assert sorted(families - {re.sub("_(?:bucket|sum|count)$", "", name) for name in shown}) == []


def test_every_alert_says_what_to_do_and_is_tried() -> None:
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text(encoding="utf-8"))
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    page = PAGE.read_text(encoding="utf-8")

    assert {rule["alert"] for rule in alerts} == {test["name"] for test in tests["tests"]} - {
        "calm"
    }
    assert [rule["alert"] for rule in alerts if not rule["annotations"].get("runbook")] == []
    assert [rule["alert"] for rule in alerts if f"`{rule['alert']}`" not in page] == []


def test_the_dashboard_can_be_put_on_any_data_source() -> None:
    board = dashboard()
    ids = [panel["id"] for panel in board["panels"]]
    sources = {panel["datasource"]["uid"] for panel in board["panels"] if "datasource" in panel}
    variables = {variable["name"] for variable in board["templating"]["list"]}

    assert len(ids) == len(set(ids))
    assert sources == {"${datasource}"}
    assert {"datasource", "job"} <= variables


class TestPlanted:
    def test_a_metric_that_is_gone_is_found(self) -> None:
        assert strangers({"a": "rate(maas_gone_total[5m])"}, {}) == ["a: maas_gone_total"]

    def test_a_label_that_is_gone_is_found(self) -> None:
        texts = {"a": 'sum(maas_things_total{job="x",colour=~"red"})'}

        assert strangers(texts, {"maas_things_total": {"size"}}) == ["a: maas_things_total{colour}"]
