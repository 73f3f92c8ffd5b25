"""LLVM assembly as it is written: names, nested loops, each instruction at its level.

A function under construction is a stack of *scopes*: the entry block, the loop over
programs, the loops inside. Instructions go to the innermost scope, unless they may be
hoisted: then to the outermost one that knows all their operands. What a scope holds so
far stands before the header of the loop inside it, so hoisting is appending:

    w = Writer("f", "ptr %args, i64 %lo, i64 %hi")
    loop = w.open_loop("%lo", "%hi", 1, (), "program")     # counter %program
    n = w.value("mul i64 %hi, 3", "n", hoist=True)         # lands before the loop
    m = w.value(f"add i64 {loop.counter}, {n}", "m")       # stays inside

A pure instruction that an enclosing scope already holds is not written again: no LLVM
pass runs over this text, so nobody else would merge them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_OPERAND = re.compile(r"%[\w.]+")
_UNFIT = re.compile(r"\W", re.ASCII)


@dataclass(slots=True)
class _Scope:
    """Code between two loop boundaries."""

    block: str
    """The label of the basic block that code is appended to."""
    lines: list[str] = field(default_factory=list[str])
    known: dict[str, str] = field(default_factory=dict[str, str])
    """Pure instructions, and the name that holds their result."""


@dataclass(frozen=True, slots=True)
class Loop:
    """An open loop. `carried` are (type, initial value); `names` hold them inside."""

    label: str
    counter: str
    lo: str
    hi: str
    step: int
    carried: tuple[tuple[str, str], ...]
    names: tuple[str, ...]
    runs: bool
    """The first trip is certain."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Open code behind a condition."""

    label: str
    condition: str


class Writer:
    """Collects one function. `parameters` are LLVM's, all of them known everywhere.

    One `apart` is for the others of its module, which seldom call it.
    """

    def __init__(self, name: str, parameters: str, apart: bool = False) -> None:
        self.called = name
        linkage, self._kind = ("internal ", "cold ") if apart else ("", "")
        self._head = f"define {linkage}void {symbol(name)}({parameters})"
        self._scopes = [_Scope("entry")]
        self._levels: dict[str, int] = {}
        self._used: dict[str, int] = {"entry": 1, "leave": 1}
        self._declared: set[str] = set()
        self.widened: dict[str, str] = {}
        """The f32 bits of values that were narrowed from them, which stand beside."""
        self.clean: set[str] = set()
        """Values of f32 whose NaNs have no bits in the lower half: what hardware makes
        of numbers that had none."""
        self._leaves = False
        for parameter in _OPERAND.findall(parameters):
            self.name(parameter[1:])

    def name(self, hint: str) -> str:
        """A name for a value or a block that nobody has: `%x`, then `%x.1`."""
        stem = _UNFIT.sub("_", hint) or "v"
        stem = f"v{stem}" if stem[0].isdigit() else stem
        count = self._used.get(stem, 0)
        self._used[stem] = count + 1
        return f"%{stem}.{count}" if count else f"%{stem}"

    def value(self, text: str, hint: str = "v", hoist: bool = False) -> str:
        """The result of a pure instruction, written unless it is at hand."""
        for scope in self._scopes:
            known = scope.known.get(text)
            if known is not None:
                return known
        level = self._level(text) if hoist else len(self._scopes) - 1
        name = self._append(text, hint, level)
        self._scopes[level].known[text] = name
        return name

    def read(self, text: str, hint: str = "v") -> str:
        """The result of an instruction that depends on memory: never merged."""
        return self._append(text, hint, len(self._scopes) - 1)

    def effect(self, text: str) -> None:
        """An instruction without result."""
        self._scopes[-1].lines.append(f"  {text}")

    def comment(self, text: str) -> None:
        self._scopes[-1].lines.append(f"  ; {text}")

    def at_entry(self, text: str, hint: str) -> str:
        """An instruction of the entry block: an argument, a stack slot."""
        return self._append(text, hint, 0)

    def declare(self, signature: str) -> None:
        """Declare an external function: `float @fmodf(float)`."""
        self._declared.add(f"declare {signature}")

    def open_loop(
        self,
        lo: str,
        hi: str,
        step: int,
        carried: Sequence[tuple[str, str]],
        hint: str,
        runs: bool = False,
    ) -> Loop:
        """Enter a loop: what is written next is its body, until `close_loop`."""
        label = self.name(f"{hint}_loop")
        self._scopes.append(_Scope(label[1:]))
        counter = self._local(hint)
        names = tuple(self._local(_stem(value)) for _, value in carried)
        return Loop(label, counter, lo, hi, step, tuple(carried), names, runs)

    def close_loop(self, loop: Loop, following: Sequence[str]) -> tuple[str, ...]:
        """Leave the loop; `following` are the next carried values. The last ones."""
        onward = self.value(f"add nsw i64 {loop.counter}, {loop.step}", "next")
        again = self.value(f"icmp slt i64 {onward}, {loop.hi}", "again")
        leave = self.name(f"{loop.label[1:].split('.')[0]}_end")
        self.effect(f"br i1 {again}, label {loop.label}, label {leave}")
        body = self._scopes.pop()
        self._enter(loop, leave)
        outer = self._scopes[-1]
        before, after = f"%{outer.block}", f"%{body.block}"
        outer.lines.append(f"{loop.label[1:]}:")
        starts = ("i64", loop.lo), *loop.carried
        for (type_, first), name, last in zip(
            starts, (loop.counter, *loop.names), (onward, *following), strict=True
        ):
            edges = f"[ {first}, {before} ], [ {last}, {after} ]"
            outer.lines.append(f"  {name} = phi {type_} {edges}")
        outer.lines += [*body.lines, f"{leave[1:]}:"]
        outer.block = leave[1:]
        results: list[str] = []
        for (type_, first), last in zip(loop.carried, following, strict=True):
            around = "" if loop.runs else f", [ {first}, {before} ]"
            text = f"phi {type_} [ {last}, {after} ]{around}"
            results.append(self.read(text, _stem(last)))
        return tuple(results)

    def open_arm(self, condition: str, hint: str) -> Arm:
        """Enter code that runs where the condition holds, until `close_arm`."""
        label = self.name(hint)
        self._scopes.append(_Scope(label[1:]))
        return Arm(label, condition)

    def close_arm(
        self, arm: Arm, ways: Sequence[tuple[str, str, str]]
    ) -> tuple[str, ...]:
        """Leave it. `ways` are types, values from inside, and values without it."""
        join = self.name("join")
        self.effect(f"br label {join}")
        body, outer = self._scopes.pop(), self._scopes[-1]
        before, inside = f"%{outer.block}", f"%{body.block}"
        self.effect(f"br i1 {arm.condition}, label {arm.label}, label {join}")
        outer.lines += [f"{arm.label[1:]}:", *body.lines, f"{join[1:]}:"]
        outer.block = join[1:]
        return tuple(
            self.read(f"phi {type_} [ {x}, {inside} ], [ {y}, {before} ]", _stem(x))
            for type_, x, y in ways
        )

    def choose(self, condition: str, then: Sequence[str], other: Sequence[str]) -> None:
        """Run one of two lists of instructions, none of which has a result."""
        labels = [self.name(hint) for hint in ("then", "else", "join")]
        yes, no, join = labels
        self.effect(f"br i1 {condition}, label {yes}, label {no}")
        scope = self._scopes[-1]
        for label, instructions in ((yes, then), (no, other)):
            scope.lines.append(f"{label[1:]}:")
            scope.lines += [f"  {text}" for text in instructions]
            scope.lines.append(f"  br label {join}")
        scope.lines.append(f"{join[1:]}:")
        scope.block = join[1:]

    def leave_if(self, condition: str, first: Sequence[str] = ()) -> None:
        """Return here where the condition holds. No loop is open.

        `first` are instructions without names that then run before.
        """
        (entry,) = self._scopes
        onward = self.name("onward")
        out = self.name("undo") if first else "%leave"
        self.effect(f"br i1 {condition}, label {out}, label {onward}")
        if first:
            entry.lines.append(f"{out[1:]}:")
            entry.lines += [f"  {text}" for text in (*first, "br label %leave")]
        entry.lines.append(f"{onward[1:]}:")
        entry.block = onward[1:]
        self._leaves = True

    def definition(self) -> list[str]:
        """The lines of the function. Every loop is closed."""
        (entry,) = self._scopes
        lines = [f"{self._head} {self._kind}nounwind {{", "entry:", *entry.lines]
        if self._leaves:
            lines += ["  br label %leave", "leave:"]
        return [*lines, "  ret void", "}"]

    @property
    def declared(self) -> frozenset[str]:
        """The declarations of the functions that it calls."""
        return frozenset(self._declared)

    def _append(self, text: str, hint: str, level: int) -> str:
        name = self.name(hint)
        self._scopes[level].lines.append(f"  {name} = {text}")
        self._levels[name] = level
        return name

    def _level(self, text: str) -> int:
        """The innermost scope of the operands in an instruction."""
        return max((self._levels.get(n, 0) for n in _OPERAND.findall(text)), default=0)

    def _local(self, hint: str) -> str:
        name = self.name(hint)
        self._levels[name] = len(self._scopes) - 1
        return name

    def _enter(self, loop: Loop, leave: str) -> None:
        """From the enclosing scope into the loop, or around it."""
        if loop.runs:
            self.effect(f"br label {loop.label}")
            return
        some = self.value(f"icmp slt i64 {loop.lo}, {loop.hi}", "some")
        self.effect(f"br i1 {some}, label {loop.label}, label {leave}")


def _stem(value: str) -> str:
    """What a value was called after."""
    return value[1:].split(".")[0] if value.startswith("%") else "carried"


def symbol(name: str) -> str:
    """A function's name as LLVM spells it: `@exp`, `@"exp 2"`."""
    return f"@{name}" if re.fullmatch(r"[\w.]+", name, re.ASCII) else f'@"{name}"'


def module(functions: Sequence[Writer]) -> str:
    """One module of several functions."""
    lines = [line for function in functions for line in function.definition()]
    declared = frozenset[str]().union(*(f.declared for f in functions))
    return "\n".join([*lines, *sorted(declared), ""])
