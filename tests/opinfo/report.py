"""What a sweep found: a table by family, what fails, and what runs through ATen."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from opinfo.cases import GRADIENT, Case
from opinfo.check import EXCUSED, FAILED, RIGHT, SKIPPED, WRONG, Outcome
from opinfo.sweep import CRASHED, HUNG

Outcomes = Mapping[Case, Outcome]

BAD = (WRONG, FAILED, CRASHED, HUNG)
COLUMNS = (RIGHT, *BAD, EXCUSED, SKIPPED)


def report(outcomes: Outcomes) -> str:
    """The whole report."""
    parts = [table(outcomes), externs(outcomes), failures(outcomes)]
    return "\n\n".join(part for part in parts if part)


def table(outcomes: Outcomes) -> str:
    """A line for each family: verdicts by case, and native shares by op and by case.

    A case is native if it runs nothing through ATen; an op, if all its cases are: first
    those without gradients, then all.
    """
    head = f"{'family':18}" + "".join(f"{name:>9}" for name in COLUMNS)
    lines = [f"{head}   {'native ops':18}{'with gradients':18}cases"]
    families = sorted({case.family for case in outcomes})
    for family in families:
        chosen = {c: o for c, o in outcomes.items() if c.family == family}
        lines.append(_row(family, chosen))
    return "\n".join([*lines, _row("all", outcomes)])


def _row(title: str, outcomes: Outcomes) -> str:
    verdicts = Counter(outcome.verdict for outcome in outcomes.values())
    counts = "".join(f"{verdicts[name]:9}" for name in COLUMNS)
    values = {c: o for c, o in outcomes.items() if c.way != GRADIENT}
    ops = (natives(values).values(), natives(outcomes).values())
    shares = [_share(list(found)) for found in (*ops, native_cases(outcomes).values())]
    by_op, with_gradients, by_case = shares
    return f"{title:18}{counts}   {by_op:18}{with_gradients:18}{by_case}"


def _share(native: Sequence[bool]) -> str:
    if not native:
        return "-"
    return f"{sum(native)}/{len(native)} = {sum(native) / len(native):.1%}"


def natives(outcomes: Outcomes) -> dict[str, bool]:
    """Whether each op that ran at all ran without ATen."""
    native: dict[str, bool] = {}
    for case, good in native_cases(outcomes).items():
        native[case.name] = native.get(case.name, True) and good
    return native


def native_cases(outcomes: Outcomes) -> dict[Case, bool]:
    """Whether each case that ran at all ran without ATen."""
    return {
        case: outcome.verdict in (RIGHT, WRONG) and not outcome.externs
        for case, outcome in outcomes.items()
        if outcome.verdict not in (SKIPPED, EXCUSED)
    }


def externs(outcomes: Outcomes) -> str:
    """What runs through ATen: the ops of ATen by family, most wanted first."""
    users: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for case, outcome in outcomes.items():
        if outcome.verdict not in (SKIPPED, EXCUSED):
            for name in outcome.externs:
                users[case.family, name][case.name] = None
    lines = [
        f"  {family:18}{name:48} {_some(list(found))}"
        for (family, name), found in sorted(
            users.items(), key=lambda item: (item[0][0], -len(item[1]))
        )
    ]
    return "\n".join(["through ATen", *lines]) if lines else ""


def _some(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names):3}: {' '.join(names[:most])}{more}"


def failures(outcomes: Outcomes) -> str:
    """Every case that is wrong, fails, crashes or hangs."""
    return "\n".join(_failures(outcomes.items()))


def _failures(items: Iterable[tuple[Case, Outcome]]) -> Iterator[str]:
    for case, outcome in items:
        if outcome.verdict in BAD:
            yield f"{outcome.verdict}: {case}"
            yield from (f"    {line}" for line in outcome.detail.splitlines()[:12])
