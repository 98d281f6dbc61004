"""Small models trained in seconds on tasks whose answer is known, for slow tests."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from kinds import letters
from torch import Tensor

from cutaway.models import Decoder, DecoderConfig, Model
from cutaway.tokenizers import Tokenizer, train_tokenizer

TOKENS = 64
KEYS, VALUES, ASK, FILLERS = range(16), range(16, 32), 32, range(33, TOKENS)
Batch = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]  # ids (B, T) and which next tokens count (B, T - 1)


def trained(config: DecoderConfig, batch: Batch, seed: int, steps: int, rate: float = 3e-3) -> Model:
    """A decoder trained with AdamW, 64 texts a step."""
    torch.manual_seed(seed)
    network = Decoder(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.normal_(0, 0.05)
    drawn = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    for step in range(steps):
        ids, counts = batch(64, drawn)
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * (1 - step / steps) ** 0.5
        loss = F.cross_entropy(network(ids)[:, :-1][counts], ids[:, 1:][counts])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return Model(network.eval(), letters(), "trained in a test")


def repeats(count: int, drawn: torch.Generator, length: int = 40) -> tuple[Tensor, Tensor]:
    """Random tokens of which a stretch of random length comes twice in a row, at a random place."""
    ids = torch.randint(0, TOKENS, (count, length), generator=drawn)
    for row in ids:
        size = int(torch.randint(8, length // 2 + 1, (1,), generator=drawn))
        first = int(torch.randint(0, length - 2 * size + 1, (1,), generator=drawn))
        row[first + size : first + 2 * size] = row[first : first + size].clone()
    return ids, torch.ones(count, length - 1, dtype=torch.bool)


def induction_model(
    layers: int, seed: int, *, heads: int = 4, steps: int = 700, rate: float = 3e-3, **features: Any
) -> Model:
    """Attention alone, trained on random repeats."""
    config = DecoderConfig(TOKENS, 64, layers, 64, heads, mlp=False, tied=False, **features)
    return trained(config, repeats, seed, steps, rate)


def repeated_losses(model: Model, seed: int = 99) -> tuple[float, float]:
    """Nats per token within the second stretch, and within the first."""
    drawn = torch.Generator().manual_seed(seed)
    first = torch.randint(0, TOKENS, (64, 20), generator=drawn)
    ids = torch.cat((first, first), dim=1)
    losses = F.cross_entropy(model.logits(ids)[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    return float(losses[:, 21:].mean()), float(losses[:, :19].mean())


def facts(count: int, drawn: torch.Generator, length: int = 8) -> tuple[Tensor, Tensor]:
    """Fillers with one key among them, the question, and the key's value: key i has value 16 + i."""
    ids = torch.randint(FILLERS.start, FILLERS.stop, (count, length), generator=drawn)
    keys = torch.randint(0, len(KEYS), (count,), generator=drawn)
    ids[torch.arange(count), torch.randint(1, length - 2, (count,), generator=drawn)] = keys
    ids[:, -2], ids[:, -1] = ASK, keys + VALUES.start
    counts = torch.zeros(count, length - 1, dtype=torch.bool)
    counts[:, -1] = True
    return ids, counts


def recall_model(seed: int, layers: int = 3, steps: int = 300) -> Model:
    """A decoder that knows sixteen facts."""
    return trained(DecoderConfig(TOKENS, 32, layers, 64, 4, tied=False), facts, seed, steps)


WORDS = "the cat sat on a mat and that dog ran to his house near the river with some food".split()  # noqa: SIM905
SHOUTED, SPOKEN = "A CAT RAN TO THE RIVER", "a cat ran to the river"


def two_styles(tokenizer: Tokenizer) -> Batch:
    """Numbers, and then words that are all shouted or all spoken."""

    def batch(count: int, drawn: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = []
        for _ in range(count):
            words = [WORDS[i] for i in torch.randint(len(WORDS), (9,), generator=drawn).tolist()]
            digits = "".join(map(str, torch.randint(10, (4,), generator=drawn).tolist()))
            said = " ".join(words)
            rows.append(
                tokenizer.encode(f"{digits} {said.upper() if torch.rand((), generator=drawn) < 0.5 else said}")[:28]
            )
        ids = torch.tensor(rows)
        return ids, torch.ones(count, 27, dtype=torch.bool)

    return batch


def two_style_model(seed: int, steps: int = 300) -> Model:
    """A character model of texts in two styles, which numbers do not tell."""
    tokenizer = train_tokenizer(
        [SHOUTED + SPOKEN + " 0123456789" + "".join(WORDS) + "".join(WORDS).upper()] * 3, "char", 400
    )
    config = DecoderConfig(tokenizer.vocab_size, 32, 3, 64, 4)
    model = trained(config, two_styles(tokenizer), seed, steps)
    return Model(model.network, tokenizer, "trained in a test")
