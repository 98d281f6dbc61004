"""How much better than counting? The n-gram model that every run is compared with."""

from typing import Any

from cutaway.models.ngram import best_order
from cutaway.tokenizers import TokenStore
from cutaway.training.objectives.base import ROWS

MOST = 5_000_000  # training tokens that are counted: about ten seconds


def fit_baseline(store: TokenStore, *, context: int, eval_tokens: int = 0, most: int = MOST) -> dict[str, Any]:
    """Count the training tokens and score the same validation tokens as a run does.

    The n-gram model is an interpolated Kneser-Ney one of the best order (cutaway.models.ngram).

    Args:
        store: with the splits "train" and "valid".
        context: of the run, which decides how many tokens its evaluation counts.
        eval_tokens: as in TrainConfig.
        most: training tokens to count, from the beginning.

    Returns:
        order, loss (nats per token), parameters (counts stored), tokens (counted for it).
    """
    train, valid = store["train"], store["valid"]
    rows = max(1, ROWS // context) * context
    scored = valid.tokens if eval_tokens == 0 else min(valid.tokens, max(1, eval_tokens // rows) * rows)
    counted = min(train.tokens, most)
    model, loss = best_order(train.window(0, counted), valid.window(0, scored), store.tokenizer.vocab_size)
    return {"order": model.order, "loss": loss, "parameters": model.parameters, "tokens": counted}


def better_by(loss: float, baseline: float) -> float:
    """By which share of itself the baseline's loss is undercut; negative where counting is better."""
    return 1 - loss / baseline
