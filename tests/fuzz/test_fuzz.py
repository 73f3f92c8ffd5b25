"""The fuzzers themselves, on seeds that are always the same."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from fuzz import catalog
from fuzz.__main__ import HARMLESS
from fuzz.catalog import Line
from fuzz.fit import Bound, fit, unified
from fuzz.generate import Generator, program
from fuzz.inputs import FORMS, tensor
from fuzz.judge import judge
from fuzz.mutants import corpus, mutant
from fuzz.pool import Worker
from fuzz.programs import Input, Program, Step, snippet
from fuzz.reading import judge as read
from fuzz.shrink import shrink
from fuzz.worker import packed

from fusec import cli
from fusec.frontend.aten.registry import HANDLERS
from fusec.ir import arguments
from fusec.ir.core import Function
from fusec.ir.parser import parse_function
from fusec.ir.printer import format_function
from fusec.passes.lower_to_loops import lower_to_loops

SEEDS = range(1_000_000, 1_000_048)
TEXTS = range(1500)


@pytest.mark.parametrize("first", SEEDS[::12])
def test_programs_of_fixed_seeds(first: int) -> None:
    for seed in range(first, first + 12):
        verdict = judge(program(seed))
        assert not verdict.failed, snippet(program(seed), verdict.message)


@pytest.mark.parametrize("first", TEXTS[::500])
def test_texts_of_fixed_seeds(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Workers have a limit of memory; strides that grew may ask for gigabytes of it.
    monkeypatch.setattr(arguments, "MOST_ELEMENTS", 1 << 22)
    found: Counter[str] = Counter()
    for seed in range(first, first + 500):
        text = mutant(seed, corpus())
        verdict = read(text)
        assert verdict.kind in HARMLESS, f"{text}\n{verdict.message}"
        found[verdict.kind] += 1
    assert found["ok"] > 5
    assert found["refused"] > 100


def test_a_seed_gives_one_program() -> None:
    for seed in range(5):
        made = program(seed)
        assert made == program(seed) == Program.from_json(made.to_json())


def test_programs_are_of_many_kinds() -> None:
    programs = [program(seed) for seed in range(150)]
    text = "".join(made.source() for made in programs)
    ops = "sum where cat gather reshape tanh to( add_ @ bmm( addmm( linear( einsum("
    for op in ops.split():
        assert op in text, op
    inputs = [each for made in programs for each in made.inputs]
    assert {each.form for each in inputs} == set(FORMS)
    assert {len(each.shape) for each in inputs} == {0, 1, 2, 3, 4}
    assert any(0 in each.shape for each in inputs)
    assert {made.mode for made in programs} == {
        "direct", "dynamo", "dynamic", "backward",
    }  # fmt: skip
    assert max(len(made.steps) for made in programs) > 15


def test_every_product_can_be_drawn() -> None:
    """Of some seed, each line finds operands that suit and is a test of something."""
    left = list(catalog.CONTRACTIONS)
    for seed in range(200):
        left = [line for line in left if not drawn_alone(line, seed)]
    assert not left, [line.text for line in left]


def drawn_alone(line: Line, seed: int) -> bool:
    """Whether a line suits inputs of a seed."""
    generator = Generator(random.Random(seed), (2, 3, 4))
    for k in range(3):
        generator.run.enter(generator.input(k, "direct"))
    return generator.step(lambda: line, 0) is not None


def test_products_have_extents_of_all_sizes() -> None:
    """None, one, several: of the sums' terms too."""
    draw, seen = random.Random(0), set()
    for _ in range(500):
        bound: Bound = {}
        values = {"x0": (3, 4), "x1": (4, 5), "x2": (60,)}
        for pattern in ("mk", "kn"):
            assert fit(draw, values, pattern, bound, (3, 7))
        seen |= {(letter, min(n, 2)) for letter, n in bound.items()}
    assert seen >= {(letter, n) for letter in "mkn" for n in range(3)}


@pytest.mark.parametrize("pattern", ["mk", "*k", "k", "b1kn", "mm"])
@pytest.mark.parametrize("shape", [(), (6,), (0, 3), (4, 5), (5, 4, 1), (2, 1, 3, 3)])
def test_what_fits_has_the_shape_of_its_pattern(
    shape: tuple[int, ...], pattern: str
) -> None:
    x = torch.arange(torch.Size(shape).numel()).reshape(shape)
    for seed in range(30):
        bound: Bound = {"k": 4}
        found = fit(random.Random(seed), {"x": shape}, pattern, bound, (2, 3))
        if found is None:
            continue
        made = eval(found[1], {"x": x})
        assert unified(pattern, made.shape, {"k": 4}) == {"1": 1, **bound}
        assert x.untyped_storage().data_ptr() == made.untyped_storage().data_ptr()


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_inputs(form: str) -> None:
    x = tensor((3, 4, 5), torch.float32, form, "normal", 3)
    assert x.shape == (3, 4, 5)
    assert x.isfinite().all()
    assert torch.equal(x, tensor((3, 4, 5), torch.float32, form, "normal", 3))
    dense = form in ("contiguous", "offset")
    assert x.is_contiguous() == dense
    assert tensor((), torch.int8, form).shape == ()


def wrong_program() -> Program:
    steps = (
        Step("v0", "x0 + x1", "rounded"),
        Step("v1", "v0.transpose(0, 1)", "moved"),
        Step("v2", "v1 * 2", "product"),
        Step("v3", "v2.relu()", "chosen"),
        Step("v4", "v3 - 1", "rounded"),
    )
    inputs = (
        Input("x0", (13, 7), "float64", "strided", "special", 5),
        Input("x1", (13, 7), "float64", "expanded", "normal", 6),
    )
    return Program(inputs, steps, ("v4", "v1"), "dynamic")


def test_failures_are_made_small() -> None:
    """Whatever has a relu fails, so that is all that is left."""
    small = shrink(wrong_program(), lambda made: "relu" in made.source())
    assert [step.text for step in small.steps] == [f"{small.inputs[0].name}.relu()"]
    (given,) = small.inputs
    assert (given.form, given.dtype, given.seed) == ("contiguous", "float32", 0)
    assert given.shape in ((), (1,), (1, 1))
    assert small.mode == "direct"


def test_a_bug_is_found_made_small_and_written_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What relu becomes is replaced: the finding shows by itself what went wrong."""
    monkeypatch.setitem(HANDLERS, "aten.relu.default", lambda e, x: x + 1)
    verdict = judge(wrong_program())
    assert verdict.kind == "verify"
    assert "the frontend changed result" in verdict.message
    assert "graph @" in verdict.graph
    assert sum(hasattr(x, "shape") for x in verdict.arguments) == 2
    text = snippet(wrong_program(), verdict.message)
    path = tmp_path / "found.py"
    path.write_text(text)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # elsewhere relu is right


def maxima_for_sums(function: Function) -> Function:
    """A pass with a bug."""
    text = format_function(function).replace("sum<f32>", "max<f32>")
    return lower_to_loops(parse_function(text))


def test_what_is_written_down_shows_the_bug_to_fusec_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fusec.passes.pipeline.lower_to_loops", maxima_for_sums)
    given = Input("x0", (3, 4), "float32", "transposed")
    step = Step("v0", "x0.sum(1)", "summed")
    verdict = judge(Program((given,), (step,), ("v0",)))
    assert verdict.kind == "verify"
    graph, arrays = tmp_path / "found.fir", tmp_path / "found.npz"
    graph.write_text(verdict.graph)
    arrays.write_bytes(packed(verdict.arguments))
    run = ["run", str(graph), "--inputs", str(arrays), "--option", "verify=1"]
    assert cli.main(run) == 2
    assert "lower_to_loops changed result 0" in capsys.readouterr().err
    monkeypatch.undo()
    assert cli.main(run) == 0


def test_a_process_that_dies_or_hangs_is_an_answer() -> None:
    with Worker("fuzz.broken_worker", patience=20) as worker:
        assert worker.ask({"seed": 0})["kind"] == "ok"
        assert worker.ask({"seed": 1})["kind"] == "crash"
        assert worker.ask({"seed": 0})["kind"] == "ok"
    with Worker("fuzz.broken_worker", patience=1) as worker:
        assert worker.ask({"seed": 2})["kind"] == "hang"
