"""What fusec makes of three models in plain PyTorch: `make demo`.

SmolLM2 answers a prompt, MiniLM embeds sentences and a small GPT takes a training step,
each under eager, inductor and fusec. The columns:

    max error  the largest difference from the same model in float64: of a logit, of an
               embedding's component, of the loss or a gradient's component (relative to
               the largest one of its tensor)
    same       whether the outcome, shown below the table, is that of eager
    first s    the calls that compile, with cold caches
    ms/call    a warm call; for SmolLM2, the prefill
    ms/token   a warm call by its tokens; for SmolLM2, a decoding step
    graphs     how often torch.compile compiled
    kernels    loop nests before fusion > kernels after it

The exit status is 1 if under fusec a model fails or warns, its error is above twice
eager's own, its outcome differs, or it compiles too often: SmolLM2 above three times
(prefill, first decode, dynamic decode), the others above once. The same of inductor is
told, but is no failure of the demo's.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from statistics import median

import contest
import gpt
import minilm
import smollm2
import torch
from contest import Compiled, Run, timed, warm
from torch import Tensor, nn

QUESTION = "Explain in simple words why the sky is blue."


class Answer:
    """SmolLM2 answers `QUESTION` greedily, with a growing KV cache."""

    graphs = 3

    def __init__(self, quick: bool) -> None:
        self.pretrained = smollm2.load()
        self.prompt = self.pretrained.encode(QUESTION)
        self.length = 16 if quick else 64
        self.repeats = 3 if quick else 10
        self.reference = cache(self.logits64)
        self.title = (
            f"SmolLM2-135M-Instruct: a prompt of {self.prompt.shape[1]} tokens, "
            f"{self.length} greedy tokens"
        )

    def model(self) -> nn.Module:
        return self.pretrained.model

    def run(self, compiled: Compiled) -> Run:
        steps = smollm2.generate(compiled, self.prompt)
        timings = [timed(lambda: next(steps)) for _ in range(self.length)]
        answer = tuple(token for (token, _), _ in timings)
        logits = torch.cat([logits for (_, logits), _ in timings], dim=1)
        seconds = [seconds for _, seconds in timings]
        with torch.no_grad():
            prefill = warm(lambda: compiled(self.prompt, None), self.repeats)
        return Run(
            error=largest(logits - self.reference(answer)),
            outcome=self.pretrained.decode(list(answer)),
            first=sum(seconds[: self.graphs]),
            call=prefill,
            token=median(seconds[self.graphs :]),
        )

    def logits64(self, answer: tuple[int, ...]) -> Tensor:
        """The logits of the prompt and the answer, in float64 and one call."""
        tokens = torch.cat([self.prompt, torch.tensor([answer[:-1]])], dim=1)
        with torch.no_grad():
            return doubled(self.model())(tokens, None)[0]


class Embed:
    """MiniLM embeds sentences; the outcome is which one is nearest to each."""

    graphs = 1

    def __init__(self, quick: bool) -> None:
        self.pretrained = minilm.load()
        self.inputs = self.pretrained.encode(minilm.SENTENCES)
        self.tokens = int(self.inputs[1].sum())
        self.repeats = 5 if quick else 30
        with torch.no_grad():
            self.reference = doubled(self.model())(*self.inputs)
        self.title = (
            f"all-MiniLM-L6-v2: {len(minilm.SENTENCES)} sentences, {self.tokens} tokens"
        )

    def model(self) -> nn.Module:
        return self.pretrained.model

    def run(self, compiled: Compiled) -> Run:
        with torch.no_grad():
            embeddings, first = timed(lambda: compiled(*self.inputs))
            call = warm(lambda: compiled(*self.inputs), self.repeats)
        others = embeddings @ embeddings.T - 2 * torch.eye(len(embeddings))
        return Run(
            error=largest(embeddings - self.reference),
            outcome=f"nearest to each sentence: {others.argmax(dim=1).tolist()}",
            first=first,
            call=call,
            token=call / self.tokens,
        )


class Train:
    """A small GPT takes a training step: the loss and the gradient of every weight."""

    graphs = 1

    def __init__(self, quick: bool) -> None:
        config = gpt.Config(hidden=256 if quick else 512, heads=4 if quick else 8)
        torch.manual_seed(0)
        self.network = gpt.GPT(config)
        self.inputs = gpt.sample(8, config.positions, seed=0)
        self.repeats = 3 if quick else 10
        exact = doubled(self.network)
        self.reference = gradients(exact, self.step, exact)
        self.title = (
            f"GPT, {config.layers} layers of {config.hidden}: "
            f"a training step of {self.inputs[0].numel()} tokens"
        )

    def model(self) -> nn.Module:
        return self.network

    def step(self, compiled: Compiled) -> Tensor:
        """The loss; gradients are left in the model's parameters."""
        loss = compiled(*self.inputs)
        loss.backward()
        return loss.detach()

    def run(self, compiled: Compiled) -> Run:
        found, first = timed(lambda: gradients(self.network, self.step, compiled))
        call = warm(lambda: self.step(compiled), self.repeats)
        errors = {
            name: largest(found[name] - exact) / largest(exact)
            for name, exact in self.reference.items()
        }
        return Run(
            error=max(errors.values()),
            outcome=f"loss {found['loss']:.4f}",
            first=first,
            call=call,
            token=call / self.inputs[0].numel(),
        )


def gradients(
    model: nn.Module, step: Callable[[Compiled], Tensor], compiled: Compiled
) -> dict[str, Tensor]:
    """The loss, and the gradient of each parameter of `model`, after one `step`."""
    model.zero_grad(set_to_none=True)
    loss = step(compiled)
    found = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return found | {"loss": loss}


def doubled(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).double()


def largest(difference: Tensor) -> float:
    """The largest magnitude; NaN where there is one."""
    return difference.detach().abs().max().item()


COLUMNS = (
    "error against float64 | outcome as eager's | compiling calls | warm call | warm"
    " token | compilations | loop nests > kernels"
)
"""What the columns of each table are, in one line."""

TASKS = {"smollm2": Answer, "minilm": Embed, "gpt": Train}


def main() -> int:
    parser = argparse.ArgumentParser(description="Show fusec on three models.")
    parser.add_argument("--quick", action="store_true", help="fewer tokens and repeats")
    parser.add_argument("--model", choices=TASKS, help="only this one")
    parser.add_argument("--threads", type=int, help="as torch.set_num_threads")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32")
    print(COLUMNS)
    faults = []
    with tempfile.TemporaryDirectory() as cold:
        os.environ["FUSEC_CACHE"] = "0"
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cold
        for name in [options.model] if options.model else TASKS:
            faults += contest.hold(TASKS[name](options.quick))
    return judged(faults)


def judged(faults: list[str]) -> int:
    """Print what did not match; the exit status, which is 1 for faults of fusec's."""
    for fault in faults:
        whose = "" if is_ours(fault) else " (not of fusec's making)"
        print(f"MISMATCH {fault}{whose}", file=sys.stderr)
    return 1 if any(map(is_ours, faults)) else 0


def is_ours(fault: str) -> bool:
    return fault.startswith("fusec")


if __name__ == "__main__":
    sys.exit(main())
