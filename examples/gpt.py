"""A small GPT learns to write: a training step in plain PyTorch.

    python examples/gpt.py --backend fusec

Tokens are bytes and the text is this repository's licence, so nothing is downloaded.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEXT = Path(__file__).parents[1] / "LICENSE"


@dataclass(frozen=True)
class Config:
    vocabulary: int = 256
    positions: int = 128
    layers: int = 4
    hidden: int = 256
    heads: int = 4


class Layer(nn.Module):
    """Attention to earlier positions, then an MLP, each added to its input."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(config.hidden)
        self.attention = nn.Linear(config.hidden, 3 * config.hidden)
        self.attended = nn.Linear(config.hidden, config.hidden)
        self.mlp_norm = nn.LayerNorm(config.hidden)
        self.up = nn.Linear(config.hidden, 4 * config.hidden)
        self.down = nn.Linear(4 * config.hidden, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.attention(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.transpose(1, 3).unbind(2)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attended(attended.transpose(1, 2).flatten(-2))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class GPT(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary, config.hidden)
        self.positions = nn.Embedding(config.positions, config.hidden)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(config.hidden)
        self.output = nn.Linear(config.hidden, config.vocabulary, bias=False)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The mean cross entropy, in nats, of `targets` after `tokens`.

        Both are [batch, length]; a target is the token that follows.
        """
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.tokens(tokens) + self.positions(positions)
        for layer in self.layers:
            x = layer(x)
        logits = self.output(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def sample(batch: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """`batch` random stretches of the text, and the same one byte later."""
    text = torch.tensor(list(TEXT.read_bytes()))
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(text) - length, (batch, 1), generator=generator)
    at = starts + torch.arange(length)
    return text[at], text[at + 1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small GPT on the licence.")
    parser.add_argument("--backend", default="fusec", help="for torch.compile")
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    torch.manual_seed(0)
    config = Config()
    model = GPT(config)
    loss_of = torch.compile(model, backend=options.backend)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(options.steps + 1):
        loss = loss_of(*sample(8, config.positions, seed=step))
        if step % 10 == 0:
            print(f"step {step:4}  loss {loss.item():.3f}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main()
