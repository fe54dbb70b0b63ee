"""What the comparison of gateways comes to: the figures of each way, and the goals of ours."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from rich.table import Table

from bench.audit import AuditRow
from bench.gateway import CALLERS, CHUNKS, MODES, Comparison, Figures, Growth, Name
from bench.litellm_proxy import VERSION

RATE_GOAL: Final = 12.0
P50_SHARE_GOAL: Final = 0.15
P99_SHARE_GOAL: Final = 0.25
STREAM_CPU_GOAL: Final = 1 / 8
FIRST_SHARE_GOAL: Final = 0.05
MEMORY_SHARE_GOAL: Final = 0.5
GROWTH_GOAL: Final = 0.05
MOST: Final = 64
NAMES: Final[tuple[Name, ...]] = ("direct", "LiteLLM", "ours")


def figures_table(compared: Comparison) -> Table:
    heads = ("call", "callers", "way", "CPU ms", "of all", "a core", "p50 ms", "p99", "first")
    table = Table(*heads, "callers' ms", title=f"One model, directly and through LiteLLM {VERSION}")
    for mode in MODES:
        for callers in CALLERS:
            for name in NAMES:
                of_kind = compared.figures[name, mode, callers]
                table.add_row(mode, str(callers), name, *_cells(name, of_kind))
    return table


def _cells(name: Name, of_kind: Figures) -> Iterator[str]:
    yield f"{of_kind.gateway_ms:.2f}"
    yield f"{of_kind.every_ms:.2f}" if name == "ours" else ""
    yield "" if name == "direct" else f"{1000 / of_kind.gateway_ms:,.0f}/s"
    yield from (f"{figure:.1f}" for figure in (of_kind.whole(0.5), of_kind.whole(0.99)))
    yield f"{of_kind.first(0.5):.1f}"
    yield f"{of_kind.generator_ms:.3f}"


def goal_rows(compared: Comparison) -> Iterator[AuditRow]:
    """Hold ours against LiteLLM's, for each number of callers that a goal is about."""
    for callers in CALLERS:
        direct, theirs, ours = (compared.figures[name, "plain", callers] for name in NAMES)
        yield _at_least(f"plain, {callers}: requests a core", theirs.gateway_ms / ours.gateway_ms)
        added = _share(ours.whole(0.5), theirs.whole(0.5), floor=direct.whole(0.5))
        yield _at_most(f"plain, {callers}: added p50", added, P50_SHARE_GOAL)
        if callers == MOST:
            p99 = ours.whole(0.99) / theirs.whole(0.99)
            yield _at_most(f"plain, {callers}: p99", p99, P99_SHARE_GOAL)
    for callers in CALLERS:
        direct, theirs, ours = (compared.figures[name, "streamed", callers] for name in NAMES)
        cpu = ours.gateway_ms / theirs.gateway_ms
        yield _at_most(f"{CHUNKS} chunks, {callers}: CPU", cpu, STREAM_CPU_GOAL)
        added = _share(ours.first(0.5), theirs.first(0.5), floor=direct.first(0.5))
        yield _at_most(f"{CHUNKS} chunks, {callers}: added to first", added, FIRST_SHARE_GOAL)
    theirs_mib, ours_mib = (compared.memory[name] for name in ("LiteLLM", "ours"))
    memory = _at_most("memory", ours_mib / theirs_mib, MEMORY_SHARE_GOAL)
    yield replace(memory, figure=f"{memory.figure}, {ours_mib:.0f} MiB beside {theirs_mib:.0f}")


def growth_row(growth: Growth) -> AuditRow:
    return AuditRow(
        name=f"growth over {growth.calls:,} calls",
        figure=f"{growth.share:.1%}, {growth.before:.0f} to {growth.after:.0f} MiB",
        goal=f"<= {GROWTH_GOAL:.0%}",
        is_met=growth.share <= GROWTH_GOAL,
    )


def _at_least(name: str, ratio: float) -> AuditRow:
    return AuditRow(
        name=name,
        figure=f"{ratio:.1f}x",
        goal=f">= {RATE_GOAL:.0f}x LiteLLM's",
        is_met=ratio >= RATE_GOAL,
    )


def _at_most(name: str, share: float, goal: float) -> AuditRow:
    return AuditRow(
        name=name, figure=f"{share:.1%}", goal=f"<= {goal:.1%} of LiteLLM's", is_met=share <= goal
    )


def _share(ours: float, theirs: float, *, floor: float) -> float:
    """Tell what share ours adds to the floor of what theirs adds."""
    return (ours - floor) / (theirs - floor)
