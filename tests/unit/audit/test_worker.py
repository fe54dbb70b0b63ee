from collections import OrderedDict
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import WorkController
from kombu.transport.redis import Channel

from maas.audit.application.flush import HARD_LIMIT, FlushReport
from maas.audit.interface.tasks import flush_audit, prune_audit
from maas.shared.infrastructure.settings import AuditSettings, RedisSettings, SupplierSettings
from maas.shared.infrastructure.task_queue import broker_url
from maas.worker import BesideStep, InstalledLoader, SteadyQoS, WorkerApp
from maas.worker_schedule import configuration


def make_redis(url: str, broker: str | None = None) -> RedisSettings:
    return RedisSettings.model_validate({"url": url, "broker_url": broker})


class TestBrokerUrl:
    @pytest.mark.parametrize(
        ("url", "spelled"),
        [
            ("redis://:p@h:6379/2", "redis://:p@h:6379/2"),
            ("rediss://h/0", "rediss://h/0"),
            ("unix:///run/s", "redis+socket:///run/s?virtual_host=0"),
            ("unix://:p%40@/run/s?db=3", "redis+socket://:p%40@/run/s?virtual_host=3"),
        ],
    )
    def test_is_spelled_for_celery(self, url: str, spelled: str) -> None:
        assert broker_url(make_redis(url)) == spelled

    def test_may_be_another_server(self) -> None:
        assert broker_url(make_redis("redis://state/0", "redis://broker/0")) == "redis://broker/0"

    def test_leads_to_the_socket_in_a_folder_with_any_name(self) -> None:
        app = WorkerApp("socket", set_as_current=False)
        url = broker_url(make_redis("unix://default:p-_@/srv/my%20data%20%26/s?db=2"))

        with app.connection_for_write(url) as connection:
            channel: Any = Channel.__new__(Channel)
            channel.connection = connection.transport
            arguments = channel._connparams()

        assert (arguments["path"], arguments["db"]) == ("/srv/my data &/s", 2)
        assert (arguments["username"], arguments["password"]) == ("default", "p-_")


class TestCurrentFolder:
    def test_is_no_place_to_import_from(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tmp_path.joinpath("planted_in_cwd.py").write_text("")
        monkeypatch.chdir(tmp_path)
        loader = WorkerApp("planted", loader=InstalledLoader, set_as_current=False).loader

        for load in (loader.import_task_module, loader.import_from_cwd, loader.find_module):
            with pytest.raises(ModuleNotFoundError):
                load("planted_in_cwd")


class TestConfiguration:
    conf = configuration(make_redis("redis://h/0"), AuditSettings(), SupplierSettings())

    def test_ends_every_task_well_before_it_is_delivered_again(self) -> None:
        times = (
            HARD_LIMIT.total_seconds(),
            self.conf["task_soft_time_limit"],
            self.conf["task_time_limit"],
            self.conf["visibility_timeout"],
        )

        assert times == tuple(sorted(times))
        assert self.conf["task_time_limit"] <= 45
        for place in ("broker_transport_options", "result_backend_transport_options"):
            assert self.conf[place]["visibility_timeout"] == self.conf["visibility_timeout"]

    def test_takes_json_only(self) -> None:
        assert self.conf["accept_content"] == ["json"]
        assert self.conf["result_accept_content"] == ["json"]
        assert self.conf["task_serializer"] == self.conf["result_serializer"] == "json"

    def test_ticks_at_the_set_interval_and_lets_old_ticks_lapse(self) -> None:
        conf = configuration(
            make_redis("redis://h/0"), AuditSettings(flush_interval=10), SupplierSettings()
        )

        tick = conf["beat_schedule"]["audit.flush"]
        assert tick["schedule"] == timedelta(seconds=10)
        assert tick["options"]["expires"] == 20

    def test_watches_suppliers_unless_it_is_switched_off(self) -> None:
        off = configuration(
            make_redis("redis://h/0"), AuditSettings(), SupplierSettings(check_seconds=0)
        )

        assert self.conf["beat_schedule"]["provider.check"]["schedule"] == timedelta(seconds=60)
        assert "provider.check" not in off["beat_schedule"]


@pytest.mark.parametrize("connection", [None, SimpleNamespace(client=None)], ids=["none", "closed"])
def test_a_message_in_hand_does_not_end_the_worker_with_its_connection(
    connection: SimpleNamespace | None,
) -> None:
    channel = SimpleNamespace(connection=connection, do_restore=True)
    qos = SteadyQoS(channel)
    qos._delivered = OrderedDict(tag=SimpleNamespace())

    qos.restore_unacked_once()

    assert list(qos._delivered) == ["tag"]


def test_the_task_runs_the_flush_of_its_app() -> None:
    runs: list[str] = []

    def run() -> FlushReport:
        runs.append("flush")
        return FlushReport()

    app = WorkerApp("test", set_as_current=False)
    app.services = {"audit_flush": run}

    app.tasks[flush_audit.name].run()

    assert runs == ["flush"]


@pytest.mark.parametrize(("has_more", "sent"), [(True, 1), (False, 0)])
def test_the_prune_comes_again_while_more_is_left(
    monkeypatch: pytest.MonkeyPatch, *, has_more: bool, sent: int
) -> None:
    app = WorkerApp("test", set_as_current=False)
    app.services = {"audit_prune": lambda: has_more}
    task = app.tasks[prune_audit.name]
    again: list[dict[str, object]] = []
    monkeypatch.setattr(task, "apply_async", lambda **options: again.append(options))

    task.run()

    assert len(again) == sent


def test_the_sweep_runs_in_the_parent_before_the_broker_is_asked() -> None:
    order = [step.__name__ for step in boot_order()]

    assert order.index("Pool") < order.index("BesideStep") < order.index("Consumer")


def boot_order() -> list[type]:
    """The order in which Celery starts the steps of a worker."""
    blueprint: Any = WorkController.Blueprint(steps=[BesideStep])
    blueprint.steps = blueprint.claim_steps()
    return list(blueprint._finalize_steps(blueprint.steps))
