"""Published encoders compute what they compute in transformers, from the same files, and go back unchanged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import Float64, masks, token_ids, write_checkpoint
from safetensors.torch import load_file

from cutaway.models import ActiveTap, EncoderConfig
from cutaway.models.encoder import Encoder
from cutaway.models.families import FAMILIES
from cutaway.models.formats.huggingface import open_huggingface, write_huggingface

transformers = pytest.importorskip("transformers")

LENGTH, PAD = 19, 1
EAGER: dict[str, Any] = {"attn_implementation": "eager"}
BERT: dict[str, Any] = {
    "vocab_size": 47,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
    "pad_token_id": PAD,
}
DISTIL: dict[str, Any] = {
    "vocab_size": 47,
    "dim": 24,
    "n_layers": 2,
    "n_heads": 3,
    "hidden_dim": 40,
    "max_position_embeddings": 32,
    "pad_token_id": PAD,
}
MODERN = {**BERT, "num_hidden_layers": 4, "num_attention_heads": 2, "local_attention": 6} | {
    f"{name}_token_id": 0 for name in ("bos", "eos", "cls", "sep")
}
ROPE = {"rope_type": "default", "rope_theta": 500.0}
YARN = {"rope_type": "yarn", "rope_theta": 900.0, "factor": 4.0, "original_max_position_embeddings": 8}
WIDE = {"num_hidden_layers": 3, "num_attention_heads": 1, "hidden_size": 15, "intermediate_size": 61}
ODD = {"hidden_act": "gelu_new", "type_vocab_size": 3, "layer_norm_eps": 1e-3, "vocab_size": 53}

# a family's config class, how its architectures are called, and what its shapes have that BERT … has not
SHAPES: dict[str, tuple[str, str, dict[str, Any], list[dict[str, Any]]]] = {
    "bert": ("BertConfig", "Bert", BERT, [{}, ODD, {**WIDE, "hidden_act": "relu", "tie_word_embeddings": False}]),
    "roberta": (
        "RobertaConfig",
        "Roberta",
        BERT,
        [{"type_vocab_size": 1}, {**ODD, "pad_token_id": 4}, {**WIDE, "tie_word_embeddings": False}],
    ),
    "xlm-roberta": (
        "XLMRobertaConfig",
        "XLMRoberta",
        BERT,
        [{"type_vocab_size": 1}, {**ODD, "pad_token_id": 0}, {**WIDE, "hidden_act": "silu"}],
    ),
    "distilbert": (
        "DistilBertConfig",
        "DistilBert",
        DISTIL,
        [
            {"sinusoidal_pos_embds": True},
            {"activation": "relu", "n_heads": 1, "dim": 15, "n_layers": 3},
            {"tie_word_embeddings": False, "hidden_dim": 7, "vocab_size": 53},
        ],
    ),
    "electra": (
        "ElectraConfig",
        "Electra",
        BERT,
        [{"embedding_size": 10}, {**ODD, "embedding_size": 24}, {**WIDE, "embedding_size": 33, "hidden_act": "relu"}],
    ),
    "modernbert": (
        "ModernBertConfig",
        "ModernBert",
        MODERN,
        [
            {},
            {
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"],
                "local_attention": 3,
                "rope_parameters": {"full_attention": ROPE, "sliding_attention": {**ROPE, "rope_theta": 50.0}},
                "attention_bias": True,
                "mlp_bias": True,
                "norm_bias": True,
                "classifier_bias": True,
                "classifier_activation": "relu",
                "hidden_activation": "gelu_pytorch_tanh",
                "classifier_pooling": "mean",
            },
            {
                "rope_parameters": {"full_attention": YARN, "sliding_attention": {**ROPE, "rope_theta": 50.0}},
                "num_attention_heads": 1,
                "hidden_size": 14,
                "intermediate_size": 9,
                "decoder_bias": False,
                "tie_word_embeddings": False,
                "norm_eps": 1e-3,
            },
            {"layer_types": ["full_attention"] * 4, "hidden_activation": "silu"},
        ],
    ),
}
HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
CASES = [
    (family, shape, head)
    for family, (_, _, _, shapes) in SHAPES.items()
    for shape in range(len(shapes))
    for head in (HEADS if shape == 0 else HEADS[1:3])
]
CASES += [("electra", shape, "ForPreTraining") for shape in range(3)]


def name(case: tuple[str, int, str]) -> str:
    return "-".join(map(str, case))


def write(case: tuple[str, int, str], folder: Path) -> Any:
    family, number, head = case
    config_class, architecture, base, shapes = SHAPES[family]
    labels = {"num_labels": 3 + number} if "Classification" in head else {}
    config = getattr(transformers, config_class)(**{**base, **shapes[number], **labels})
    config._attn_implementation = "eager"
    return write_checkpoint(lambda: getattr(transformers, architecture + head)(config), folder)


@pytest.fixture(scope="module", params=CASES, ids=name)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("peer")
    return write(request.param, folder), folder


def opened(folder: Path, dtype: torch.dtype | None = None) -> tuple[Encoder, Any]:
    network, origin = open_huggingface(folder, dtype)
    assert isinstance(network, Encoder)
    return network, origin


def inputs(
    config: Any, real: torch.Tensor | None, batch: int = 3
) -> tuple[torch.Tensor, dict[str, Any], dict[str, Any]]:
    """Ids, and what else theirs and ours are given; RoBERTa knows padding by its id."""
    padding = config.pad_token_id
    ids = token_ids(config.vocab_size - padding - 1, batch, LENGTH) + padding + 1
    ids[0, 0] = padding - 1 if padding else ids[0, 0]
    theirs: dict[str, Any] = {}
    ours: dict[str, Any] = {"mask": real}
    if real is not None:
        ids = ids.masked_fill(~real, padding)
        theirs["attention_mask"] = real.long()
        if "roberta" not in config.model_type:
            theirs["position_ids"] = (real.cumsum(1) - 1).clamp(min=0)
    kinds = getattr(config, "type_vocab_size", 0)
    if kinds > 1:
        ours["token_types"] = theirs["token_type_ids"] = token_ids(kinds, batch, LENGTH)
    return ids, theirs, ours


def output(theirs: Any) -> torch.Tensor:
    if "start_logits" in theirs:
        return torch.stack((theirs.start_logits, theirs.end_logits), dim=-1)
    return theirs.logits if "logits" in theirs else theirs.last_hidden_state


def test_every_encoder_is_here():
    encoders = {name for name, family in FAMILIES.items() if family.config is EncoderConfig}
    assert encoders == set(SHAPES)
    assert all(len(shapes) >= 3 for *_, shapes in SHAPES.values())
    for family in encoders:
        tried = {SHAPES[family][1] + head for name, _, head in CASES if name == family}
        assert set(FAMILIES[family].heads) - tried <= {"BertForPreTraining"}  # opened as a masked language model


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 5e-5), (torch.float64, 1e-9)], ids=["float32", "float64"])
@torch.no_grad()
def test_outputs_and_hidden_states(
    case: tuple[Any, Path], dtype: torch.dtype, bound: float, record_property: Any, tmp_path: Path
):
    peer, folder = case
    network, _ = opened(folder, dtype)
    exact = dtype == torch.float64
    if exact:
        with Float64():
            torch.set_default_dtype(dtype)
            try:  # once more in float64, angles and all
                peer = type(peer).from_pretrained(folder, dtype=dtype, **EAGER).eval()
            finally:
                torch.set_default_dtype(torch.float32)
    largest = 0.0
    for side, mask in masks(3, LENGTH).items():
        ids, given, ours_given = inputs(peer.config, mask)
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        with Float64() if exact else torch.no_grad():
            theirs = peer(ids, output_hidden_states=True, **given)
            expected = output(theirs)
            if side == "left" and expected.shape[:2] != ids.shape:
                # they take the first token, padding or not, ours the first real one: as without the padding
                rows = zip(ids, real, given.get("token_type_ids", torch.zeros_like(ids)), strict=True)
                typed = "token_type_ids" in given
                expected = torch.cat(
                    [
                        output(peer(row[seen][None], **({"token_type_ids": kinds[seen][None]} if typed else {})))
                        for row, seen, kinds in rows
                    ]
                )
        seen: dict[str, torch.Tensor] = {}
        names = ["layers.0.resid_pre", *(f"layers.{i}.resid_post" for i in range(network.config.layers))]
        if network.config.norm_place == "before":
            names[-1] = "final_norm"  # theirs has the last layer after the final norm only
        found = network(ids, **ours_given, tap=ActiveTap(names, sink=seen.__setitem__))
        assert torch.equal(found, network(ids, **ours_given))
        assert found.dtype == expected.dtype == dtype
        assert found.shape == expected.shape
        difference = (found - expected).abs()
        largest = max(largest, float((difference[real] if found.shape[:2] == ids.shape else difference).max()))
        assert len(theirs.hidden_states) == len(names)
        for ours, hidden in zip(map(seen.__getitem__, names), theirs.hidden_states, strict=True):
            assert (ours - hidden)[real].abs().max() <= bound * max(1.0, float(hidden[real].abs().max()))
        if network.config.pooler and side != "left":
            assert (network.pooled(found, mask) - theirs.pooler_output).abs().max() <= bound
    record_property("largest", largest)
    assert largest <= bound


def written(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_round_trip(case: tuple[Any, Path], tmp_path: Path):
    folder = case[1]
    network, origin = opened(folder)
    write_huggingface(network, tmp_path, origin=origin, extra={})
    ours, theirs = written(tmp_path), written(folder)
    if not network.config.tied:  # a second bias, which transformers keeps and nothing reads
        unread = {"cls.predictions.bias", "lm_head.bias"} & (theirs.keys() - ours.keys())
        theirs = {name: tensor for name, tensor in theirs.items() if name not in unread}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in theirs)
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads((folder / "config.json").read_text())


@torch.no_grad()
def test_written_without_its_origin_it_still_opens_in_transformers(case: tuple[Any, Path], tmp_path: Path):
    """The config is spelled by the family file alone."""
    peer, folder = case
    network, origin = opened(folder)
    write_huggingface(network, tmp_path, family=origin.family, extra={})
    again = type(peer).from_pretrained(tmp_path, dtype=torch.float32, **EAGER).eval()
    assert again.config.architectures == peer.config.architectures
    ids, given, _ = inputs(peer.config, None, batch=2)
    assert (output(again(ids, **given)) - output(peer(ids, **given))).abs().max() <= 1e-5
    assert opened(tmp_path)[0].config == network.config
