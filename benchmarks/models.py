"""Whole models: a forward pass and a training step, beside eager and Inductor.

Weights of MiniLM and SmolLM2 are the published ones; the others are drawn. `of peak` is
the share of the f32 multiply-adds of this run that the model's products alone would
take: where it is high, no compiler has much to gain. `first` is the wait for the first
call, with the compilers' caches as they are.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import harness
import torch
from harness import Call, Spread
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import gpt
import minilm
import smollm2

from fusec.measuring.timing import interleave

PROMPT = 512
"""Tokens of a prefill, and positions in the cache of a decoding step."""


class LlamaBlock(nn.Module):
    """Attention with rotary positions and fewer heads of keys, then a gated MLP."""

    def __init__(self, width: int = 768, heads: int = 12, groups: int = 4) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.norm, self.mlp_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, groups * self.size, bias=False)
        self.value = nn.Linear(width, groups * self.size, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, 4 * width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        angles = torch.outer(torch.arange(1024), 0.9 ** torch.arange(self.size // 2))
        self.cos, self.sin = nn.Buffer(angles.cos()), nn.Buffer(angles.sin())

    def turned(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        cos, sin = self.cos[: x.shape[-2]], self.sin[: x.shape[-2]]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def split(self, x: Tensor, heads: int) -> Tensor:
        return x.unflatten(-1, (heads, self.size)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        query = self.turned(self.split(self.query(y), self.heads))
        key = self.turned(self.split(self.key(y), self.groups))
        value = self.split(self.value(y), self.groups)
        attended = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=True
        )
        x = x + self.out(attended.transpose(1, 2).flatten(-2))
        y = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class MixerBlock(nn.Module):
    """An MLP across positions, then one across channels."""

    def __init__(self, positions: int = 196, width: int = 512) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.across = nn.Sequential(
            nn.Linear(positions, 256), nn.GELU(), nn.Linear(256, positions)
        )
        self.along = nn.Sequential(
            nn.Linear(width, 2048), nn.GELU(), nn.Linear(2048, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.norms
        x = x + self.across(first(x).transpose(1, 2)).transpose(1, 2)
        return x + self.along(second(x))


class ViTBlock(nn.Module):
    """Attention among patches, then an MLP."""

    def __init__(self, width: int = 384, heads: int = 6) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.norms
        qkv = self.qkv(first(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.transpose(1, 3).unbind(2)
        attended = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(attended.transpose(1, 2).flatten(-2))
        return x + self.down(F.gelu(self.up(second(x))))


@dataclass(frozen=True)
class Model:
    """A module, what to call it with, and whether it is trained as well."""

    module: nn.Module
    inputs: tuple[Any, ...]
    trains: bool = True


@cache
def _smollm2() -> Any:
    return smollm2.load().model


def _decoding() -> Model:
    model = _smollm2()
    tokens = torch.randint(0, 1000, (1, PROMPT))
    with torch.no_grad():
        _, kept = model(tokens, None)
    return Model(model, (tokens[:, :1], kept), trains=False)


def _prefill() -> Model:
    tokens = torch.randint(0, 1000, (1, PROMPT))
    return Model(_smollm2(), (tokens, None), trains=False)


def _gpt() -> Model:
    config = gpt.Config()
    return Model(gpt.GPT(config), gpt.sample(8, config.positions, seed=0))


def _minilm() -> Model:
    tokens = torch.randint(1000, 2000, (8, 64))
    return Model(minilm.load().model, (tokens, torch.ones_like(tokens).bool()))


MODELS: dict[str, Callable[[], Model]] = {
    "GPT, 4 layers": _gpt,
    "MiniLM": _minilm,
    "SmolLM2, prefill of 512": _prefill,
    "SmolLM2, decoding": _decoding,
    "Llama block": lambda: Model(LlamaBlock(), (torch.randn(2, 512, 768),)),
    "mixer block": lambda: Model(MixerBlock(), (torch.randn(4, 196, 512),)),
    "ViT block": lambda: Model(ViTBlock(), (torch.randn(4, 197, 384),)),
}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
TOLERANCE = {"f32": 1e-3, "bf16": 0.1}
"""How far from eager a result may be, as a share of it: roundings add up."""
NOTHING = 1e-3
"""The share of the largest result below which one is nothing."""


@dataclass(frozen=True)
class Row:
    """A model, forward or a whole step: seconds per call of each candidate."""

    model: str
    direction: str
    dtype: str
    threads: int
    seconds: dict[str, float]
    first: dict[str, float]
    """Seconds of the first call."""
    to_inductor: Spread | None
    of_peak: float

    def cells(self) -> list[str]:
        shown = ("eager", "inductor", "fusec")
        times = [
            f"{self.seconds[n] * 1e3:.2f}" if n in self.seconds else "" for n in shown
        ]
        first = [f"{self.first[n]:.1f}" if n in self.first else "" for n in shown[1:]]
        ratio = str(self.to_inductor or "")
        return [
            self.model,
            self.direction,
            *times,
            ratio,
            f"{self.of_peak:.0%}",
            *first,
        ]


HEADER = (
    *("model", "direction", "eager ms", "inductor ms", "fusec ms", "inductor/fusec"),
    *("of peak", "first inductor s", "first fusec s"),
)


def call_of(model: Model, function: Callable[..., Any], direction: str) -> Call:
    """A forward pass without gradients, or a step with all of them."""

    def forward() -> Any:
        with torch.no_grad():
            return function(*model.inputs)

    def step() -> Any:
        model.module.zero_grad(set_to_none=True)
        loss = function(*model.inputs)
        loss = loss if loss.ndim == 0 else loss.float().square().mean()
        loss.backward()
        return loss

    return step if direction == "step" else forward


def results(model: Model, made: Any) -> list[Tensor]:
    """What a call gave: tensors, and the gradients of a step."""
    found = [x for x in tree_leaves(made) if isinstance(x, Tensor)]
    grads = (p.grad for p in model.module.parameters() if p.grad is not None)
    return [x.detach().double() for x in (*found, *grads) if x.is_floating_point()]


def check(
    backend: str, got: Sequence[Tensor], wanted: Sequence[Tensor], most: float
) -> None:
    """Raise `AssertionError` if fusec gave something else than eager; of others say
    so. Gradients that come to nothing, as those of the biases of keys, are held
    against the others."""
    pairs = list(zip(got, wanted, strict=True))
    least = NOTHING * max(float(b.norm()) for _, b in pairs)
    error = max(float((a - b).norm() / max(b.norm(), least)) for a, b in pairs)
    told = f"{backend} is off by {error:.1e} of eager's results"
    assert error <= most or backend != "fusec", told
    if error > most:
        print(f"   {told}")


def measure(
    name: str,
    direction: str,
    dtype: str,
    threads: int,
    rounds: int,
    backends: Sequence[str],
) -> Row:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = MODELS[name]()
    kind = DTYPES[dtype]
    module = model.module.to(kind)
    cast = [
        x.to(kind) if isinstance(x, Tensor) and x.is_floating_point() else x
        for x in model.inputs
    ]
    if name == "SmolLM2, decoding":
        cast[1] = tuple(tuple(x.to(kind) for x in pair) for pair in model.inputs[1])
    model = Model(module, tuple(cast), model.trains)
    calls = {"eager": call_of(model, module, direction)}
    wanted = results(model, calls["eager"]())
    first: dict[str, float] = {}
    for backend in backends:
        torch.compiler.reset()
        call = call_of(model, torch.compile(module, backend=backend), direction)
        began = time.perf_counter()
        made = call()
        first[backend] = time.perf_counter() - began
        check(backend, results(model, made), wanted, TOLERANCE[dtype])
        calls[backend] = call
    with FlopCounterMode(display=False) as counter:
        calls["eager"]()
    samples = interleave(calls, rounds)
    seconds = {name: median(times) for name, times in samples.items()}
    ratio = None
    if "inductor" in samples:
        ratio = harness.ratio(samples["inductor"], samples["fusec"])
    share = counter.get_total_flops() / seconds["fusec"] / harness.peak(threads)
    return Row(name, direction, dtype, threads, seconds, first, ratio, share)


def run(
    rounds: int,
    dtypes: Sequence[str] = tuple(DTYPES),
    threads: Sequence[int] = (2,),
    models: Sequence[str] = tuple(MODELS),
    backends: Sequence[str] | None = None,
) -> list[Row]:
    """Whole models: milliseconds, ratios, and the wait for the first call."""
    harness.warm_memory()
    backends = harness.compilers(backends)
    rows: list[Row] = []
    for dtype in dtypes:
        for count in threads:
            found: list[Row] = []
            for name in models:
                trains = MODELS[name]().trains
                for direction in ("forward", "step") if trains else ("forward",):
                    row = measure(name, direction, dtype, count, rounds, backends)
                    print("  ", *row.cells(), flush=True)
                    found.append(row)
            print(f"\n{dtype}, threads {count}\n")
            print(harness.markdown(HEADER, [row.cells() for row in found]))
            for direction in ("forward", "step"):
                ratios = [
                    row.to_inductor for row in found if row.direction == direction
                ]
                if any(ratios):
                    mean = harness.mean_ratio(ratios)
                    print(f"\n{direction}: geometric mean {mean:.2f}", flush=True)
            rows += found
    return rows


def main() -> None:
    parser = harness.options(__doc__, DTYPES, (2,))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--backends", nargs="+", help="beside fusec")
    options = parser.parse_args()
    rows = run(
        options.rounds,
        options.dtypes,
        options.threads,
        options.models,
        options.backends,
    )
    if options.save:
        print(harness.save("models", rows))


if __name__ == "__main__":
    main()
