"""The image and the compose file keep to what was promised of them; no engine is needed to look."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
import yaml

from maas.shared.infrastructure.setting_sections import PREFIX
from maas.shared.infrastructure.settings import Settings
from tests.architecture.inspection import ROOT, setting_names

OWN_SERVICES = ("migrate", "api", "worker", "beat", "runtime")
SERVERS = ("postgres", "valkey")
# The image and the published port say these, and production refuses to debug.
FIXED_IN_CONTAINERS = {
    f"{PREFIX}{name}" for name in ("DATA_DIR", "SERVER__HOST", "SERVER__PORT", "DEBUG")
}
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>[A-Z_]+)(?P<rule>:?[?-])?[^}]*\}")


@dataclass(frozen=True, slots=True)
class Instruction:
    name: str
    arguments: str


@pytest.fixture(scope="module")
def stages() -> list[list[Instruction]]:
    """The instructions of each stage, continuation lines joined and comments left out."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    stages: list[list[Instruction]] = []
    for line in re.sub(r"\\\n\s*", " ", lines).splitlines():
        if not line.strip():
            continue
        name, _, arguments = line.strip().partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append(Instruction(name, arguments.strip()))
    return stages


def arguments_of(stage: list[Instruction], name: str) -> list[str]:
    return [each.arguments for each in stage if each.name == name]


class TestImage:
    def test_it_uses_known_instructions_only(self, stages: list[list[Instruction]]) -> None:
        known = {"FROM", "RUN", "COPY", "ENV", "WORKDIR", "VOLUME", "USER", "EXPOSE"}
        known |= {"HEALTHCHECK", "ENTRYPOINT", "CMD", "ARG"}

        assert {each.name for stage in stages for each in stage} <= known

    def test_it_has_two_stages_on_the_same_pinned_base(
        self, stages: list[list[Instruction]]
    ) -> None:
        bases = [arguments_of(stage, "FROM")[0].split()[0] for stage in stages]

        assert len(bases) == 2
        assert bases[0] == bases[1]
        assert re.fullmatch(r"python:3\.1[1-3]-slim(-\w+)?", bases[0])

    def test_it_runs_as_an_ordinary_user(self, stages: list[list[Instruction]]) -> None:
        assert arguments_of(stages[-1], "USER") == ["10001:10001"]

    def test_it_brings_no_tools_to_build_with(self, stages: list[list[Instruction]]) -> None:
        commands = " ".join(arguments_of(stages[-1], "RUN"))

        # OpenMP is no tool to build with, and comes with weights of one's own only.
        assert re.findall(r"apt\S* install (?:-\S+ )*([^&]+?) +&&", commands) == ["libgomp1"]
        assert commands.startswith('if [ "$EXTRA" = llamacpp ]; then')
        assert "pip uninstall --yes" in commands
        assert not re.search(r"\buv\b|pip install", commands)
        assert arguments_of(stages[-1], "COPY") == ["--from=builder /opt/maas /opt/maas"]

    def test_it_checks_its_health_without_a_shell(self, stages: list[list[Instruction]]) -> None:
        (check,) = arguments_of(stages[-1], "HEALTHCHECK")
        command = cast("list[str]", yaml.safe_load(check.partition("CMD ")[2]))

        assert command[:2] == ["python", "-c"]
        assert "/health/live" in command[2]
        compile(command[2], "HEALTHCHECK", "exec")

    def test_it_serves_unless_told_otherwise(self, stages: list[list[Instruction]]) -> None:
        assert arguments_of(stages[-1], "ENTRYPOINT") == ['["maas"]']
        assert arguments_of(stages[-1], "CMD") == ['["serve", "--host", "0.0.0.0"]']

    def test_it_installs_by_hash_from_the_lock(self, stages: list[list[Instruction]]) -> None:
        commands = " ".join(arguments_of(stages[0], "RUN"))

        assert "uv export --frozen" in commands
        assert "--require-hashes" in commands
        assert "--no-deps" in commands

    def test_everything_it_copies_is_let_through(self, stages: list[list[Instruction]]) -> None:
        allowed = {
            line.removeprefix("!")
            for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
            if line.startswith("!")
        }

        copied = {
            source
            for arguments in arguments_of(stages[0], "COPY")
            for source in shlex.split(arguments)[:-1]
        }

        assert copied == allowed
        assert all((ROOT / source).exists() for source in copied)

    def test_it_sets_existing_settings(self, stages: list[list[Instruction]]) -> None:
        names = re.findall(r"(MAAS_\w+)=", " ".join(arguments_of(stages[-1], "ENV")))

        assert names
        assert set(names) <= set(setting_names(Settings))


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "docker-compose.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def compose(text: str) -> dict[str, Any]:
    return cast("dict[str, Any]", yaml.safe_load(text))


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return cast("dict[str, dict[str, Any]]", compose["services"])


class TestCompose:
    def test_it_has_the_processes_and_their_servers(self, services: dict[str, Any]) -> None:
        assert set(services) == {*OWN_SERVICES, *SERVERS}

    def test_every_service_is_hardened(self, services: dict[str, Any]) -> None:
        for service in services.values():
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
            assert any(mount.startswith("/tmp") for mount in service["tmpfs"])  # noqa: S108  a container's

    def test_no_service_of_ours_gets_a_capability_back(self, services: dict[str, Any]) -> None:
        assert [name for name in OWN_SERVICES if "cap_add" in services[name]] == []

    def test_the_servers_are_recent_enough(self, services: dict[str, Any]) -> None:
        versions = {name: services[name]["image"].rpartition(":")[2] for name in SERVERS}

        assert float(versions["postgres"]) >= 16
        assert float(versions["valkey"]) >= 7.2

    def test_nothing_is_lost_or_evicted_in_valkey(self, compose: dict[str, Any]) -> None:
        content = compose["configs"]["valkey"]["content"]

        for line in ("appendonly yes", "appendfsync always", "maxmemory-policy noeviction"):
            assert line in content.splitlines()
        assert "requirepass ${VALKEY_PASSWORD" in content

    def test_the_api_starts_after_the_migration(self, services: dict[str, Any]) -> None:
        for name in ("api", "worker", "beat", "runtime"):
            conditions = {k: v["condition"] for k, v in services[name]["depends_on"].items()}
            assert conditions == {
                "migrate": "service_completed_successfully",
                "postgres": "service_healthy",
                "valkey": "service_healthy",
            }
        assert services["migrate"]["restart"] == "no"

    def test_what_is_depended_on_can_be_healthy(self, services: dict[str, Any]) -> None:
        assert all("test" in services[name]["healthcheck"] for name in SERVERS)

    def test_the_runtime_is_asked_for_and_has_what_runs_weights(
        self, services: dict[str, Any]
    ) -> None:
        runtime = services["runtime"]

        assert runtime["profiles"] == ["runtime"]
        assert runtime["build"]["args"] == {"EXTRA": "llamacpp"}
        assert runtime["image"] != services["api"]["image"]
        assert ":8001/health'" in runtime["healthcheck"]["test"][-1]
        compile(runtime["healthcheck"]["test"][-1], "healthcheck", "exec")

    def test_only_the_api_is_published_and_only_here(self, services: dict[str, Any]) -> None:
        published = {
            name: service["ports"] for name, service in services.items() if "ports" in service
        }

        assert published == {"api": ["127.0.0.1:${PUBLISH_PORT:-8000}:8000"]}

    def test_it_sets_existing_settings(self, services: dict[str, Any]) -> None:
        for name in OWN_SERVICES:
            assert set(services[name]["environment"]) <= set(setting_names(Settings))
            assert services[name]["environment"][f"{PREFIX}ENVIRONMENT"] == "production"

    def test_every_setting_of_the_template_is_passed_on(self, services: dict[str, Any]) -> None:
        template = (ROOT / ".env.template").read_text(encoding="utf-8")
        told = set(re.findall(rf"^#({PREFIX}\w+)=", template, re.MULTILINE))

        for name in OWN_SERVICES:
            assert told - set(services[name]["environment"]) == FIXED_IN_CONTAINERS

    def test_no_secret_has_a_value_here(self, text: str) -> None:
        secrets = {m["name"]: m["rule"] for m in VARIABLE.finditer(text) if is_secret(m["name"])}

        assert len(secrets) == 6
        assert set(secrets.values()) == {":?"}

    def test_every_variable_stands_in_the_template(self, text: str) -> None:
        template = (ROOT / ".env.template").read_text(encoding="utf-8")

        missing = {m["name"] for m in VARIABLE.finditer(text) if f"#{m['name']}=" not in template}

        assert missing == set()

    def test_everything_named_is_declared(
        self, compose: dict[str, Any], services: dict[str, Any]
    ) -> None:
        assert set(volumes_of(services)) == set(compose["volumes"])
        named = {each["source"] for s in services.values() for each in s.get("configs", ())}
        assert named == set(compose["configs"])


def is_secret(name: str) -> bool:
    return name.endswith(("PASSWORD", "SECRET_KEY"))


def volumes_of(services: dict[str, Any]) -> Iterator[str]:
    for service in services.values():
        for volume in service.get("volumes", ()):
            yield volume.partition(":")[0]
