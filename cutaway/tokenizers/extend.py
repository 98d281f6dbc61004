"""A tokenizer with more special tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence

from cutaway.errors import ConfigError
from cutaway.tokenizers.spec import special_token
from cutaway.tokenizers.tokenizer import ROLES, Tokenizer


def with_special(tokenizer: Tokenizer, names: Sequence[str]) -> Tokenizer:
    """The same tokenizer with further special tokens behind its vocabulary, in this order.

    The ids of all texts stay as they are, since special tokens are never read out of a text.

    Raises:
        ConfigError: it has a token of such a name.
    """
    if taken := [name for name in names if name in tokenizer.special or name in tokenizer.spec["model"]["vocab"]]:
        raise ConfigError(f"{tokenizer} has a token {taken[0]!r} already; give other names")
    added = [special_token(tokenizer.vocab_size + place, name) for place, name in enumerate(names)]
    spec = dict(tokenizer.spec, added_tokens=[*(tokenizer.spec.get("added_tokens") or []), *added])
    known = {id: name for name, id in tokenizer.special.items()}
    roles = {role: known[id] for role in ROLES if (id := getattr(tokenizer, role)) in known}
    return Tokenizer(
        json.dumps(spec, ensure_ascii=False, indent=1) + "\n", roles=roles, chat_template=tokenizer.chat_template
    )
