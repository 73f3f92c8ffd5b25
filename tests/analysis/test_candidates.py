"""Candidates: the default first, the others by price, each with a name of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from analysis.test_contraction import product
from analysis.test_schedule import ROWS, exp_of
from texts import ops, read

from fusec.analysis.accesses import Accesses, accesses
from fusec.analysis.candidates import (
    DEFAULT,
    MOST,
    Choice,
    candidates,
    chosen,
    described,
)
from fusec.analysis.choices import choose, product_seconds
from fusec.analysis.contraction import contraction
from fusec.ir.dims import Symbol
from fusec.ir.ops.loop import Region
from fusec.target import GPUS, SM_90, TARGETS, X86_64_V3, X86_64_V4, Target

HINTS = {Symbol("n"): 4096, Symbol("s"): 900}
ALL = [*TARGETS.values(), *GPUS.values()]


def regions() -> dict[str, Accesses]:
    texts = {
        "elementwise": exp_of("n, 4096", "i, j", "i:n, j:4096"),
        "rows": ROWS,
        "one": exp_of("1", "i", "i:1"),
    }
    found = {n: accesses(ops(read(t), Region)[0]) for n, t in texts.items()}
    return found | {"product": product(1000, 333, 512), "open": product("s", 64, 96)}


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.name)
@pytest.mark.parametrize("name", regions())
def test_the_default_comes_first_then_the_cheapest(name: str, target: Target) -> None:
    found = regions()[name]
    first, *others = candidates(found, target, HINTS)
    default = described(choose(found, target, HINTS), found)
    assert described(first.schedule, found) == default
    names = [default, *(described(each.schedule, found) for each in others)]
    assert len(set(names)) == len(names) <= MOST
    prices = [each.seconds for each in others]
    assert prices == sorted(prices)
    assert min(first.seconds, *prices, 1.0) >= target.launch
    assert len(others) > 2 or name == "one"


def test_what_fusion_expects_of_a_product_is_the_price_of_the_default() -> None:
    found = product(1000, 333, 512)
    c = contraction(found)
    assert c is not None
    for target in (X86_64_V3, SM_90):
        first, *_ = candidates(found, target, {})
        assert first.seconds == product_seconds(c, found, target, {})


def test_candidates_of_a_product_differ_in_more_than_extents() -> None:
    found = product(1024, 1024, 1024)
    tried = [each.schedule for each in candidates(found, X86_64_V4, {})]
    panels = {(s.tile[0].registers, s.tile[-1].registers) for s in tried}
    assert len(panels) > 2
    assert len({len(s.packing) for s in tried}) > 1
    assert len({s.tile[1].run for s in tried}) > 1


def test_small_results_never_bypass_the_caches() -> None:
    """Whoever measures one kernel does not see who reads them next."""
    found = accesses(ops(read(exp_of("64", "i", "i:64")), Region)[0])
    tried = candidates(found, X86_64_V4, {})
    assert not any(each.schedule.streaming for each in tried)
    beyond = replace(X86_64_V4, llc_bytes=512)
    tried = candidates(found, beyond, {})
    assert {each.schedule.streaming for each in tried} == {True, False}


@pytest.mark.parametrize("name", regions())
def test_a_choice_is_found_again_by_its_text(name: str) -> None:
    for target in (X86_64_V4, SM_90):
        found = regions()[name]
        for each in candidates(found, target, HINTS)[1:9]:
            written = Choice(described(each.schedule, found), 1.5).text
            again = regions()[name]  # other axes, of the same names
            schedule = chosen(Choice.parse(written), again, target, HINTS)
            assert schedule is not None
            assert str(schedule) == str(each.schedule)


def test_choices_that_do_not_exist_any_more_are_none() -> None:
    found = regions()["rows"]
    for choice in (None, Choice(DEFAULT, 1.0), Choice("grid 0; 1 whole 999 7", 2.0)):
        assert chosen(choice, found, X86_64_V4, {}) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"schedule": 1, "gain": 1.0}', '{"schedule": ""}']
)
def test_a_text_that_is_no_choice_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Choice.parse(text)


FINGERPRINT = """
from analysis.test_contraction import product
from analysis.test_schedule import ROWS
from fusec.analysis.fingerprint import Fingerprints
from fusec.ir.dims import Facts, Symbol
from texts import read
s = Symbol("s")
print(Fingerprints(Facts(), {s: 9}).of(product("s", 64, 96).region.body).text)
(op,) = read(ROWS).body.ops
print(Fingerprints(Facts(), {}).of(op.body).text)
"""


def test_a_fingerprint_reads_the_same_in_every_process() -> None:
    texts = {
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    (text,) = texts
    assert "sum<f32>" in text
    assert "0x" not in text
    assert "object" not in text
