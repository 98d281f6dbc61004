"""Configs of encoders as they should not be: each becomes a network of shapes, or one of our errors, at once."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cutaway.errors import CutawayError
from cutaway.files import write_json
from cutaway.models import EncoderConfig, build_network
from cutaway.models.assemble import assemble
from cutaway.models.embedding import read_embedding
from cutaway.models.families import FAMILIES

STRANGE: list[Any] = [
    None, True, False, -1, 0, 1, 2**31, 10**12, 2**70, -(10**12), 1.5, -0.0, float("inf"), float("nan"), "", "x", "1",
    [], [[]], ["x"], [["x"]], [1] * 3, [None], [{}], {}, {"0": 1}, {"x": {}}, {"1": "a", "0": "b"}, [0, [1, [2]]],
    {"full_attention": 3}, {"full_attention": {"rope_type": []}}, {"sliding_attention": {"rope_theta": "x"}},
]  # fmt: skip
ENCODERS = [name for name, family in FAMILIES.items() if family.config is EncoderConfig]
FIELDS: dict[str, Any] = {"vocab_size": 30, "layers": 2, "width": 8, "heads": 2}
BIASES = dict.fromkeys(("norm_bias", "attention_bias", "output_bias", "mlp_bias"), True)
BERT: dict[str, Any] = {
    **FIELDS,
    **BIASES,
    "norm_place": "sum",
    "position": "learned",
    "gated": False,
    "norm_eps": 1e-12,
}


def published(name: str) -> dict[str, Any]:
    """A small config of the family, with every key that it knows."""
    family = FAMILIES[name]
    fields = FIELDS if name == "modernbert" else BERT
    extra: dict[str, Any] = {} if name in ("modernbert", "distilbert") else {"token_types": 2}
    extra |= {"position_offset": 2} if "roberta" in name else {}
    classifies = {"head": "token_classification", "labels": ("a", "b"), "head_activation": "none"}
    if name == "modernbert":
        classifies |= {"head_activation": "gelu"}
    written = family.from_config(EncoderConfig(**fields, **extra, **classifies))
    only = {key: allowed[0] for key, allowed in family.only.items()}
    return {**family.defaults, **only, "num_labels": 2, **written}


@pytest.mark.parametrize("name", ENCODERS)
def test_t3_strange_values_are_refused_or_built(name: str):
    family, config = FAMILIES[name], published(name)
    built = 0
    for key in config:
        for value in STRANGE:
            with contextlib.suppress(CutawayError):
                ours = family.to_config(config | {key: value})
                assemble(ours, None)
                built += 1
    assert built > len(config)  # null means the default, so not everything is refused


SCALINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 2.0, "original_max_position_embeddings": 8, "beta_fast": 9, "beta_slow": 2, "truncate": False},
    "llama3": {"factor": 2.0, "original_max_position_embeddings": 8, "low_freq_factor": 1, "high_freq_factor": 4},
    "longrope": {"factor": 2.0, "original_max_position_embeddings": 8, "short_factor": [1, 2], "long_factor": [3, 4]},
}


@pytest.mark.parametrize("kind", SCALINGS)
@torch.no_grad()
def test_t3_strange_scalings_are_refused_or_computed(kind: str):
    family, config = FAMILIES["modernbert"], published("modernbert") | {"max_position_embeddings": 16}
    whole = {"rope_type": kind, "rope_theta": 100.0} | SCALINGS[kind]
    changes = [{}, *({key: value} for key in whole for value in STRANGE)]
    computed = 0
    for change in changes:
        with contextlib.suppress(CutawayError):
            ours = family.to_config(config | {"rope_parameters": {"full_attention": whole | change}})
            assert build_network(ours)(torch.zeros(1, 12, dtype=torch.int64)).shape == (1, 12, 2)
            computed += 1
    assert 0 < computed < len(changes)


@pytest.mark.parametrize("key", ["modules.json", "1_Pooling/config.json", "sentence_bert_config.json"])
def test_strange_files_of_pooling_are_refused_or_read(key: str, tmp_path: Path):
    (tmp_path / "1_Pooling").mkdir()
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    good = {
        "modules.json": [{"path": path, "type": f"sentence_transformers.models.{step}"} for path, step in steps],
        "1_Pooling/config.json": {
            "word_embedding_dimension": 8,
            "pooling_mode_mean_tokens": True,
            "pooling_mode": "mean",
        },
        "sentence_bert_config.json": {"max_seq_length": 9, "do_lower_case": False},
    }
    for name, value in good.items():
        write_json(tmp_path / name, value)
    config = EncoderConfig(**FIELDS, head="none")
    assert read_embedding(tmp_path, config).head == "embedding"
    values = [*STRANGE]
    base = good[key]
    for strange in STRANGE:
        if isinstance(base, dict):
            values += [base | {name: strange} for name in base]
        else:
            values += [
                [step | {name: strange} if i == at else step for i, step in enumerate(base)]
                for at in range(3)
                for name in base[0]
            ]
    for value in values:
        (tmp_path / key).write_text(json.dumps(value))
        with contextlib.suppress(CutawayError):
            read_embedding(tmp_path, config)
