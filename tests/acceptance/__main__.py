"""`make acceptance`: one line, PASS or MISS with its figure, for each promise a command can show.

make acceptance ARGS="--quick"          leaves out what takes minutes
make acceptance ARGS="--only kill"      runs the checks whose name holds the word
make acceptance ARGS="--write"          keeps what they say in docs/acceptance.md, line by line
                                        (and docs/performance.md, with what the bench says)

What another check of the same run shows as well is left out, and named at the end; `--all` runs it.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tests.acceptance import (
    artifacts,
    backup,
    budgets,
    canaries,
    chaos,
    clients,
    documents,
    faults,
    full_disk,
    fuzz,
    hostile,
    isolation,
    journey,
    keys,
    load,
    migrations,
    planted,
    registry,
    report,
    revocation,
    sealing,
    speed,
    starting,
    streams,
    suites,
    suppliers,
    supply,
    tour,
    trail,
    weights,
)
from tests.acceptance.verdict import Check, Verdict

KEPT = Path("docs/acceptance.md")
CHECKS = [
    Check(
        name="start",
        promise="fresh clone, no uv: `make up` is ready within 6 s once the wheels are there",
        run=starting.start_as_self,
    ),
    Check(
        name="start as another user",
        promise="the same as somebody else",
        run=starting.start_as_other,
    ),
    Check(
        name="journey",
        promise="`make up`, tenant, role, budget, key, real weights, calls, trail, a key that dies",
        run=journey.walk_on_one_machine,
    ),
    Check(
        name="journey, external",
        promise="the same on PostgreSQL and Redis by URL: two API processes, two workers",
        run=journey.walk_on_servers_by_url,
        is_slow=True,
    ),
    Check(
        name="demo",
        promise="`make demo`: real weights called, the receipt proven, rows visible within 2 s",
        run=journey.play_demo,
    ),
    Check(
        name="README",
        promise="the tour, typed as it stands there",
        run=tour.follow,
    ),
    Check(
        name="a context, added",
        promise="what the documentation says of adding one passes types, contracts and tests",
        run=documents.a_context_is_added,
        is_slow=True,
    ),
    Check(
        name="alert rules",
        promise="promtool takes them; each fires on its trouble, and none in calm",
        run=documents.alert_rules,
    ),
    Check(
        name="kill -9 of the API",
        promise="no acknowledged step lacks its audit row, none has two",
        run=faults.api_is_killed,
    ),
    Check(
        name="kill -9 of the worker",
        promise="the same",
        run=faults.worker_is_killed,
    ),
    Check(
        name="kill -9 of Valkey",
        promise="the same",
        run=faults.valkey_is_killed,
    ),
    Check(
        name="key rotation under traffic",
        promise="no error while sealing keys change, no row left under an old one, no swap opens",
        run=sealing.rotation_under_traffic,
    ),
    Check(
        name="revocation",
        promise="0 of 10,000 requests let in that start after access was taken away",
        run=revocation.nobody_is_let_in,
        is_slow=True,
    ),
    Check(
        name="key revocation",
        promise="0 of 10,000 requests let in whose API key was revoked, rotated out or cut before",
        run=keys.no_key_is_let_in,
        is_slow=True,
    ),
    Check(
        name="API keys",
        promise="shown once, in clear nowhere; checked before any server; bound to the holder",
        run=keys.nothing_leaks,
    ),
    Check(
        name="budgets",
        promise="200 callers, kills and restarts: never above a limit, 95 % usable, ledger exact",
        run=budgets.hold_under_faults,
        is_slow=True,
    ),
    Check(
        name="budgets without the check",
        promise="the harness sees what is above a limit, and what a crash loses",
        run=budgets.are_proven,
        is_slow=True,
    ),
    Check(
        name="speed of budgets",
        promise="reserve and settle, one caller and a hundred, beside a bare Redis script",
        run=budgets.cost_little,
        is_slow=True,
    ),
    Check(
        name="speed of keys",
        promise="a request by API key within 3x a bare route, without a row",
        run=budgets.keys_cost_little,
        is_slow=True,
    ),
    Check(
        name="usage, asked",
        promise="10 million calls: any question within 100 ms",
        run=budgets.usage_is_told_fast,
        is_slow=True,
    ),
    Check(
        name="refresh races",
        promise="200 uses of one token at once: one successor; a stolen one ends the session",
        run=revocation.one_successor,
        is_slow=True,
    ),
    Check(
        name="a minute without Redis",
        promise="sign-ins and reads within 500 ms, limits hold, nothing lost or let in",
        run=revocation.a_minute_without_redis,
        is_slow=True,
    ),
    Check(
        name="chaos",
        promise="nothing lost, doubled or made up over 40 faults and 30,000 acts",
        run=chaos.gate,
        is_slow=True,
    ),
    Check(
        name="chaos without the outbox",
        promise="the harness sees the losses of the usual pipeline",
        run=chaos.finds_losses,
        is_slow=True,
    ),
    Check(
        name="every fault",
        promise="each row of the fault matrix by itself",
        run=chaos.every_fault,
        is_slow=True,
    ),
    Check(
        name="ten minutes without Valkey",
        promise="events seen within 10 s, none lost, drained within a minute of its return",
        run=chaos.ten_minutes_without_redis,
        is_slow=True,
    ),
    Check(
        name="fuzz",
        promise="100,000 requests as seven roles: no 5xx, none undeclared, none slow, no growth",
        run=fuzz.keeps_every_promise,
        is_slow=True,
    ),
    Check(
        name="overload",
        promise="at 3 times its peak: 90 % of it served, the rest refused in 100 ms, none fails",
        run=load.is_shed,
        is_slow=True,
    ),
    Check(
        name="slow clients",
        promise="1,000 slow heads, bodies and readers: alive in 1 s, others in twice theirs",
        run=load.is_not_slowed,
        is_slow=True,
    ),
    Check(
        name="graceful stop",
        promise="SIGTERM in mid-call: no accepted call fails, streams are told, over within 10 s",
        run=load.is_drained,
        is_slow=True,
    ),
    Check(
        name="migrations on a million rows",
        promise="each revision up, down and up: no lock over 1 s, old code on the new schema",
        run=migrations.are_walked,
        is_slow=True,
    ),
    Check(
        name="isolation",
        promise="the running API cannot change the log nor see another tenant's rows",
        run=isolation.try_everything,
    ),
    Check(
        name="hostile input",
        promise="a clear problem each time, never a 500, nothing half-done left behind",
        run=hostile.refuse,
    ),
    Check(
        name="escalation",
        promise="nobody gives more than they hold, and the last administrator stays",
        run=suites.escalation,
    ),
    Check(
        name="every route",
        promise="each of them answers as OpenAPI declares, is permissioned, audited, tenant-safe",
        run=suites.every_route,
    ),
    Check(
        name="1,000 tamperings",
        promise="each change of what was recorded is found and named to its row",
        run=trail.thousand_tamperings,
    ),
    Check(
        name="check speed",
        promise="`maas audit verify` goes through 20,000 rows a second or more",
        run=trail.check_speed,
    ),
    Check(
        name="backup under load",
        promise="nothing written before it is lost, nobody waits; all of it comes back, and proves",
        run=backup.under_load,
    ),
    Check(
        name="a gigabyte restored",
        promise="dump, restore into an empty platform, chain verified: within 5 minutes",
        run=backup.a_gigabyte,
        is_slow=True,
    ),
    Check(
        name="offline proof",
        promise="one event and a tenant's export prove themselves with the public key alone",
        run=trail.offline_proof,
    ),
    Check(
        name="trail, asked",
        promise="5 million events: any filter within 100 ms, statistics 50 ms, exports 64 MiB",
        run=speed.trail,
        is_slow=True,
    ),
    Check(
        name="statistics",
        promise="each figure is a count over the rows, whatever is flushed or dropped",
        run=suites.statistics,
    ),
    Check(
        name="retention",
        promise="20 times while flushing: chain, rows and exports still verify",
        run=suites.retention,
    ),
    Check(
        name="erasure",
        promise="no personal field of a person is left anywhere, and every hash is valid",
        run=suites.erasure,
    ),
    Check(
        name="rules",
        promise="each fires once on its scenario, and not on its near miss",
        run=suites.rules,
    ),
    Check(
        name="webhooks",
        promise="a receiver that was down for an hour gets everything, in order",
        run=suites.webhooks,
    ),
    Check(
        name="canaries",
        promise="secrets in 40 and more places of every route, 0 found in anything kept or written",
        run=canaries.hunt,
    ),
    Check(
        name="outgoing calls",
        promise="nothing that is called by choice of a tenant lies inside, however it is written",
        run=suppliers.calls_stay_outside,
    ),
    Check(
        name="connection tests",
        promise="each way a supplier can fail is told by its own code, with what to do about it",
        run=suppliers.connection_tests,
    ),
    Check(
        name="canary credential",
        promise="a supplier's key is nowhere but sealed, and nowhere once the supplier is deleted",
        run=suppliers.canary_credential,
    ),
    Check(
        name="full disk",
        promise="the same for an upload that does not fit",
        run=full_disk.fill_by_put,
    ),
    Check(
        name="full disk by tus",
        promise="507; what is durable counts; ended it frees all; it goes on when there is room",
        run=full_disk.fill_by_tus,
    ),
    Check(
        name="5 GiB on disk",
        promise="up and down with memory growth within 64 MiB, and the same bytes stored once",
        run=artifacts.five_gib_on_disk,
        is_slow=True,
    ),
    Check(
        name="5 GiB on S3",
        promise="the same on an S3-speaking server",
        run=artifacts.five_gib_on_s3,
        is_slow=True,
    ),
    Check(
        name="upload under kill -9",
        promise="the API is killed in mid-upload: a tus client resumes where it was",
        run=artifacts.killed_in_mid_upload,
    ),
    Check(
        name="collection under kill -9",
        promise="what nobody refers to is freed, what anybody does is kept, whenever it is killed",
        run=artifacts.collected_under_kills,
    ),
    Check(
        name="files that will not do",
        promise="hash, length, path, header, zip or pickle will not do: refused, and nothing left",
        run=artifacts.refused_files,
    ),
    Check(
        name="real weights",
        promise="pushed by the CLI, read, found by what is in them, pulled byte for byte",
        run=weights.there_and_back,
    ),
    Check(
        name="weights on a bad line",
        promise="push and pull go on where they were cut off",
        run=weights.broken_lines,
    ),
    Check(
        name="aliases at any time",
        promise="100 moves at once: a total order, and the version told for each moment of it",
        run=registry.tells_any_moment,
    ),
    Check(
        name="speed of the registry",
        promise="get, list and create beside MLflow's server; any search of a million in 100 ms",
        run=registry.stands_beside_mlflow,
        is_slow=True,
    ),
    Check(
        name="clients",
        promise="OpenAI's own, strict, langchain, litellm and llm-comply: real Gemma, both wires",
        run=clients.find_what_they_know,
    ),
    Check(
        name="streams",
        promise="200 callers, hang-ups, cuts, kill -9: the bill adds up to the upstream's own",
        run=streams.add_up,
        is_slow=True,
    ),
    Check(
        name="streams, in short",
        promise="the same for a quarter of a minute and one kill",
        run=streams.add_up_shortly,
        shown_by="streams",
    ),
    Check(
        name="streams unsettled",
        promise="the harness sees a charge that was never settled",
        run=streams.are_proven,
        is_slow=True,
    ),
    Check(
        name="gateway",
        promise="/v1 with key, budgets, ledger and trail, beside LiteLLM's proxy and no gateway",
        run=streams.cost_little,
        is_slow=True,
    ),
    Check(
        name="gateway memory",
        promise="flat over 20,000 calls",
        run=streams.stay_as_large,
        is_slow=True,
    ),
    Check(
        name="bench",
        promise="start, logins, files, flush and search within their goals (the rest: above)",
        run=speed.bench,
        is_slow=True,
    ),
    Check(
        name="planted violations",
        promise="each breaks the build",
        run=planted.find,
    ),
    Check(
        name="supply chain",
        promise="`make supply`: hashes, advisories, SBOM, licences, bandit, image, compose",
        run=supply.chain_holds,
    ),
    Check(
        name="tests",
        promise="`make test` passes in a fresh clone within 5 minutes on 2 cores",
        run=starting.test_as_self,
        is_slow=True,
    ),
    Check(
        name="tests as another user",
        promise="the same as somebody else",
        run=starting.test_as_other,
        is_slow=True,
        shown_by="tests",
    ),
]


def judge(check: Check) -> Verdict:
    """Run one check in a folder of its own; what stops it is a miss, with the reason as figure."""
    folder = Path(tempfile.mkdtemp(prefix="maas-acceptance-"))
    # The servers of a platform that root starts run as `nobody` and must pass through.
    folder.chmod(0o711)
    try:
        return check.run(folder)
    except Exception as exc:  # noqa: BLE001  whatever it is, the other checks still run
        return Verdict(is_met=False, figure=f"{type(exc).__name__}: {exc}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make acceptance", description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="WORD", default="", help="checks whose name holds it")
    parser.add_argument("--quick", action="store_true", help="leave out what takes minutes")
    parser.add_argument("--all", action="store_true", help="with what other checks show as well")
    parser.add_argument(
        *("--write", "-w"), type=Path, nargs="?", const=KEPT, metavar="FILE",
        help="keep what is said, beside what was said before of others; the bench's too",
    )  # fmt: skip
    arguments = parser.parse_args()
    # Else what a check has started would go on without it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if arguments.write is not None:
        speed.keep_figures()
    wanted = [
        check
        for check in CHECKS
        if arguments.only in check.name and not (arguments.quick and check.is_slow)
    ]
    names = set() if arguments.all else {check.name for check in wanted}
    checks = [check for check in wanted if check.shown_by not in names]
    console = Console(highlight=False, soft_wrap=True)
    missed, started = 0, time.monotonic()
    for check in checks:
        began = time.monotonic()
        with console.status(f"{check.name}: {check.promise}"):
            verdict = judge(check)
        missed += not verdict.is_met
        word = "[bold green]PASS[/]" if verdict.is_met else "[bold red]MISS[/]"
        seconds = time.monotonic() - began
        took = f"[dim]({seconds:.0f} s)[/]"
        console.print(f"{word}  {check.name:<22} {escape(verdict.figure)} {took}")
        if arguments.write is not None:
            report.keep(arguments.write, CHECKS, [report.Result.of(check, verdict, seconds)])
    for check in wanted:
        if check not in checks:
            console.print(f"[dim]left out: {check.name}, which {check.shown_by} shows as well[/]")
    total = time.monotonic() - started
    console.print(f"\n{len(checks) - missed} PASS, {missed} MISS in {total:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
