"""Recurrent language models: GRU and LSTM.

Shapes: B batch, T tokens, C channels, N hidden units, V vocabulary.
"""

from torch import Tensor, nn

from cutaway.models.config import RecurrentConfig
from cutaway.models.tap import OFF, Tap


class Recurrent(nn.Module):
    """Token ids to logits over the next token, one state carried from token to token."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        make = nn.GRU if config.cell == "gru" else nn.LSTM
        self.cells = make(config.width, config.hidden, config.layers, batch_first=True)
        self.lm_head = nn.Linear(config.hidden, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.embed_tokens.weight

    def forward(self, ids: Tensor, *, cache: None = None, tap: Tap = OFF) -> Tensor:
        """(B, T) ids -> (B, T, V) logits of the next token."""
        x, _ = self.cells(tap("embed", self.embed_tokens(ids)))
        return tap("logits", self.lm_head(x))

    def tap_names(self) -> list[str]:
        """Every activation name, in the order of computation."""
        return ["embed", "logits"]
