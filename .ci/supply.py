"""The supply chain's checks, one line each: `ok`, `FAIL`, or `????` for what could not be asked.

`????` is no pass: an advisory service that does not answer says nothing about the packages. The
exit code is 1 if a check failed, else 3 if one could not be asked.
"""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "supply"
DIST = ROOT / "dist"
SBOM, LICENCES = DIST / "sbom.cdx.json", DIST / "licences.md"
RUNTIME = WORK / "runtime"
TOOLS = Path(sys.executable).parent
UV = os.environ.get("MAAS_SUPPLY_UV", "uv")
PYTHON = os.environ.get("MAAS_SUPPLY_PYTHON", sys.executable)

KNOWN_VULNERABLE = ("jinja2", "2.10")
"""CVE-2019-10906: a service that does not know of it knows of nothing."""

PERMISSIVE = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PSF-2.0"),
    # Of a file, not of the work it is part of: we change none of theirs.
    "MPL-2.0",
}
ALSO_KNOWN_AS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License": "ISC",
    "MIT License": "MIT",
    "New BSD": "BSD-3-Clause",
}
EXCEPTIONS = {
    "python-dateutil": ("Dual License", "Apache-2.0 OR BSD-3-Clause, its LICENSE says"),
}
"""By package: what its metadata says, and what we go by instead."""

IMPORTED = "what is started is judged where it is started"
EXAMPLES = "examples in OpenAPI, names of kinds of tokens, and flags: none opens anything"
CONSTANTS = "no input in it: names of columns and conditions of ours"
JUSTIFIED = {
    ("B105", "audit/application/webhooks.py"): EXAMPLES,
    ("B105", "audit/interface/webhooks_schemas.py"): EXAMPLES,
    ("B105", "embedded/postgres.py"): "the name of a method",
    ("B105", "shared/infrastructure/setting_layers.py"): "names of settings",
    ("B105", "user/application/accounts.py"): EXAMPLES,
    ("B105", "user/application/members.py"): EXAMPLES,
    ("B105", "user/application/password_reset.py"): EXAMPLES,
    ("B105", "user/interface/admin_schemas.py"): EXAMPLES,
    ("B105", "user/interface/auth.py"): EXAMPLES,
    ("B105", "user/interface/invitations.py"): EXAMPLES,
    ("B105", "user/interface/leaving.py"): EXAMPLES,
    ("B105", "user/interface/registration.py"): EXAMPLES,
    ("B105", "user/interface/schemas.py"): EXAMPLES,
    ("B311", "inference/domain/routing.py"): "a share of the calls, no secret",
    ("B404", "embedded/guard.py"): IMPORTED,
    ("B404", "embedded/locator.py"): IMPORTED,
    ("B404", "embedded/processes.py"): IMPORTED,
    ("B608", "audit/infrastructure/conditions.py"): CONSTANTS,
    ("B608", "model/infrastructure/provider_queries.py"): CONSTANTS,
    ("B608", "model/infrastructure/search_conditions.py"): CONSTANTS,
    ("B608", "model/infrastructure/search_models.py"): CONSTANTS,
    ("B608", "model/infrastructure/visibility.py"): CONSTANTS,
}
"""What bandit finds where ruff's rule of the same number finds nothing to silence in place."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a check saw; `passed` is None where nobody answered."""

    passed: bool | None
    figure: str
    details: Sequence[str] = ()


Locked: TypeAlias = Mapping[str, Any]


def hashes() -> Result:
    files, bare = 0, []
    for package in _locked_packages():
        found = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        files += len(found)
        bare += [each["url"] for each in found if not each.get("hash", "").startswith("sha256:")]
        if not found:
            bare.append(f"{package['name']} comes from {package['source']}")
    return Result(not bare, f"{files} files of the lock, {files - len(bare)} with sha256", bare)


def advisories() -> Result:
    """Ask with one more that is known to be bad, else silence would read as innocence."""
    requirements = _requirements()
    control = WORK / "control.txt"
    control.write_text("{}=={}\n".format(*KNOWN_VULNERABLE))
    heard = _audit(control, "--no-deps")
    if heard is None or not any(each.get("vulns") for each in heard):
        return Result(None, "the advisory service did not answer: nothing is known; ask again")
    audited = _audit(requirements, "--require-hashes")
    if audited is None:
        return Result(None, "the advisory service fell silent; ask again")
    unknown = [f"not audited: {each['name']}" for each in audited if "skip_reason" in each]
    found = [
        f"{each['name']} {each['version']}: {vulnerability['id']}"
        for each in audited
        for vulnerability in each.get("vulns", [])
    ]
    figure = f"{len(audited) - len(unknown)} packages audited, {len(found)} advisories"
    return Result(False if found else None if unknown else True, figure, [*found, *unknown])


def _audit(requirements: Path, mode: str) -> list[dict[str, Any]] | None:
    done = _call(
        *(TOOLS / "pip-audit", "--requirement", requirements, "--disable-pip", mode),
        *("--format", "json", "--progress-spinner", "off"),
    )
    try:
        return list(json.loads(done.stdout)["dependencies"])
    except ValueError:
        return None


def sbom() -> Result:
    _runtime()
    done = _call(
        *(TOOLS / "cyclonedx-py", "environment", RUNTIME, "--pyproject", "pyproject.toml"),
        *("--output-reproducible", "--output-format", "JSON", "--output-file", SBOM),
    )
    if done.returncode != 0:
        return Result(passed=False, figure="not written", details=[done.stderr])
    told = json.loads(SBOM.read_text(encoding="utf-8"))
    # Where the wheel lay on this machine is nobody's business.
    for component in [told["metadata"]["component"], *told["components"]]:
        references = component.get("externalReferences", [])
        component["externalReferences"] = [
            each for each in references if not each["url"].startswith("file:")
        ]
    SBOM.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    parts = {component["name"].lower().replace("_", "-") for component in told["components"]}
    missing = sorted(name for name in _required_names() if name not in parts)
    return Result(not missing, f"{len(parts)} components in {_short(SBOM)}", missing)


def licences() -> Result:
    _runtime()
    rows, refused = [], []
    for package in sorted(_installed(), key=lambda each: each.name.lower()):
        licence, reason = _licence(package), ""
        expected, instead = EXCEPTIONS.get(package.name, (None, ""))
        if licence == expected:
            licence, reason = instead.split(",")[0], instead
        rows.append(f"| {package.name} | {package.version} | {licence} |")
        if not reason and not _is_permissive(licence):
            refused.append(f"{package.name} {package.version}: {licence or 'no licence told'}")
    head = "# Licences of what is installed with the platform\n\n| package | version | licence |\n"
    DIST.mkdir(exist_ok=True)
    LICENCES.write_text(f"{head}| --- | --- | --- |\n" + "\n".join(rows) + "\n", encoding="utf-8")
    figure = f"{len(rows)} packages in {_short(LICENCES)}, {len(refused)} not permissive"
    return Result(not refused, figure, refused)


def _licence(package: importlib.metadata.Distribution) -> str:
    told = package.metadata
    if expression := told.get("License-Expression"):
        return str(expression)
    # Some put the whole text there.
    line = str(told.get("License") or "").partition("\n")[0].strip()
    line = re.sub(r"\s+Copyright.*", "", line)
    classified = [
        each.rpartition(" :: ")[2]
        for each in told.get_all("Classifier") or []
        if each.startswith("License")
    ]
    return ALSO_KNOWN_AS.get(line, line) or " OR ".join(
        ALSO_KNOWN_AS.get(each, each) for each in classified
    )


def _is_permissive(licence: str) -> bool:
    """Whether each part is, or for a choice one: `A AND (B OR C)` is read without its brackets."""
    parts = [each.strip(" ()") for each in re.split(r"\bAND\b", licence)]
    return all(
        any(choice.strip(" ()") in PERMISSIVE for choice in part.split(" OR ")) for part in parts
    )


def code() -> Result:
    done = _call(TOOLS / "bandit", "-r", "src", "-q", "-f", "json")
    try:
        found = json.loads(done.stdout)["results"]
    except ValueError:
        return Result(passed=False, figure="bandit did not end well", details=[done.stderr])
    used: Counter[tuple[str, str]] = Counter()
    open_findings, silenced = [], 0
    for finding in found:
        place = finding["filename"].removeprefix("src/maas/")
        if _is_silenced(finding):
            silenced += 1
        elif (finding["test_id"], place) in JUSTIFIED:
            used[finding["test_id"], place] += 1
        else:
            open_findings.append(
                f"{finding['test_id']} src/maas/{place}:{finding['line_number']}"
                f" {finding['issue_text']}"
            )
    stale = [f"nothing left to justify: {rule} {place}" for rule, place in JUSTIFIED.keys() - used]
    figure = f"{len(found)} findings: {silenced} justified in place, {used.total()} in the table"
    return Result(not (open_findings or stale), figure, [*open_findings, *stale])


def _is_silenced(finding: Mapping[str, Any]) -> bool:
    """Whether ruff, whose rule S608 is bandit's B608, was told there why it is no fault."""
    lines = (ROOT / finding["filename"]).read_text(encoding="utf-8").splitlines()
    rule = "S" + finding["test_id"][1:]
    first, last = min(finding["line_range"]), max(finding["line_range"])
    return any(re.search(rf"noqa: [^#]*\b{rule}\b", each) for each in lines[first - 1 : last + 1])


def image() -> Result:
    """Read the Dockerfile only: to build the image takes a container engine."""
    done = _call(TOOLS / "hadolint", "--no-color", "Dockerfile")
    return _linted(done, "Dockerfile, as hadolint reads it (the image is not built here)")


def compose() -> Result:
    done = _call(
        *(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"),
        "docker-compose.yml",
    )
    return _linted(done, "docker-compose.yml, against the compose specification")


def _linted(done: "subprocess.CompletedProcess[str]", figure: str) -> Result:
    passed = done.returncode == 0
    return Result(passed, figure, [] if passed else (done.stdout + done.stderr).splitlines())


def _locked_packages() -> Iterable[Locked]:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    return [each for each in lock["package"] if "editable" not in each["source"]]


def _required_names() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {re.split(r"[\[<>=;~! ]", each)[0].lower() for each in project["dependencies"]}


def _requirements() -> Path:
    """Write what the platform needs at run time, whatever is chosen of it, with its hashes."""
    WORK.mkdir(parents=True, exist_ok=True)
    path = WORK / "requirements.txt"
    _must(
        *(UV, "export", "--frozen", "--quiet", "--no-dev", "--all-extras", "--no-emit-project"),
        *("--output-file", path),
    )
    return path


def _runtime() -> None:
    """Install the wheel and what it needs, and nothing to develop with, as a user would."""
    if (RUNTIME / ".complete").exists():
        return
    requirements = _requirements()
    wheels = WORK / "wheel"
    _must(UV, "venv", "--quiet", "--clear", "--python", PYTHON, RUNTIME)
    install = (UV, "pip", "install", "--quiet", "--python", RUNTIME)
    _must(*install, "--require-hashes", "--requirement", requirements)
    _must(UV, "build", "--quiet", "--wheel", "--python", PYTHON, "--out-dir", wheels)
    _must(*install, "--no-deps", "--reinstall", *wheels.glob("*.whl"))
    DIST.mkdir(exist_ok=True)
    (RUNTIME / ".complete").touch()


def _installed() -> Iterable[importlib.metadata.Distribution]:
    folders = [str(each) for each in RUNTIME.glob("lib/python*/site-packages")]
    return importlib.metadata.distributions(path=folders)


def _call(*command: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False
    )


def _must(*command: object) -> None:
    done = _call(*command)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} {command[1]}: {done.stdout}{done.stderr}")


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT))


CHECKS: dict[str, Callable[[], Result]] = {
    check.__name__: check for check in (hashes, advisories, sbom, licences, code, image, compose)
}
WORDS = {True: "ok", False: "FAIL", None: "????"}


def main(names: Sequence[str]) -> int:
    (RUNTIME / ".complete").unlink(missing_ok=True)
    results = []
    for name in names or CHECKS:
        try:
            result = CHECKS[name]()
        except (RuntimeError, OSError) as exc:
            result = Result(passed=False, figure=str(exc))
        print(f"{WORDS[result.passed]:<5} {name:<12} {result.figure}", flush=True)
        for detail in result.details:
            print(f"      {detail}")
        results.append(result.passed)
    if False in results:
        return 1
    return 3 if None in results else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
