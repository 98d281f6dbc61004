"""Published encoders compute what they compute in transformers, from the same files, and go back unchanged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import Float64, masks, token_ids, write_checkpoint
from safetensors.torch import load_file, save_file

from cutaway.errors import ConfigError, DamagedFile
from cutaway.models import ActiveTap, Encoder, EncoderConfig
from cutaway.models.families import FAMILIES
from cutaway.models.formats.huggingface import expressible, open_huggingface, write_huggingface

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
CASES += [("electra", shape, "ForPreTraining") for shape in range(3)] + [("bert", 1, "ForPreTraining")]


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
    for name in ("logits", "prediction_logits"):
        if name in theirs:
            return theirs[name]
    return theirs.last_hidden_state


def test_every_encoder_is_here():
    encoders = {name for name, family in FAMILIES.items() if family.config is EncoderConfig}
    assert encoders == set(SHAPES)
    assert all(len(shapes) >= 3 for *_, shapes in SHAPES.values())
    for family in encoders:
        assert set(FAMILIES[family].heads) == {SHAPES[family][1] + head for name, _, head in CASES if name == family}


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 5e-5), (torch.float64, 1e-9)], ids=["float32", "float64"])
@torch.no_grad()
def test_outputs_and_hidden_states(case: tuple[Any, Path], dtype: torch.dtype, bound: float, record_property: Any):
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
        states = network.stream(ids, **ours_given)
        if "pooler_output" in theirs and side != "left":
            assert (network.pooled(states, mask) - theirs.pooler_output).abs().max() <= bound
        if "seq_relationship_logits" in theirs and side != "left":
            assert (network.follows(states, mask) - theirs.seq_relationship_logits).abs().max() <= bound
    record_property(f"{peer.config.model_type} {dtype}", largest)
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


def legacy(case: tuple[str, int, str], folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A checkpoint and its config, to be changed and put back with `put`."""
    write(case, folder)
    return written(folder), json.loads((folder / "config.json").read_text())


def put(folder: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def test_the_first_checkpoints_spelling_and_copies(tmp_path: Path):
    """gamma and beta, tied matrices stored once more, tables of positions; and keys that configs had then."""
    tensors, config = legacy(("bert", 0, "ForMaskedLM"), tmp_path)
    plain, _ = opened(tmp_path)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    assert old.keys() != tensors.keys()
    old["cls.predictions.decoder.weight"] = old["bert.embeddings.word_embeddings.weight"]
    old["cls.predictions.decoder.bias"] = old["cls.predictions.bias"]
    old["bert.embeddings.position_ids"] = torch.arange(32)[None]
    pooler = {
        f"bert.pooler.dense.{part}": torch.ones(24, 24) if part == "weight" else torch.ones(24)
        for part in ("weight", "bias")
    }
    put(
        tmp_path, old | pooler, config | {"position_embedding_type": "absolute", "pooler_type": "first_token_transform"}
    )
    network, origin = opened(tmp_path)
    ids = token_ids(47, 2, LENGTH)
    assert torch.equal(network(ids), plain(ids))
    assert network.config.pooler
    back = tmp_path / "back"
    back.mkdir()
    write_huggingface(network, back, origin=origin, extra={})
    assert written(back).keys() == tensors.keys() | pooler.keys()
    for name in ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias"):
        put(tmp_path, old | {name: old[name] + 1}, config)
        with pytest.raises(DamagedFile, match=name):
            opened(tmp_path)
    put(tmp_path, old | {"bert.embeddings.LayerNorm.weight": torch.ones(24)}, config)
    with pytest.raises(DamagedFile, match="twice"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"is_decoder": True}, "is_decoder = True"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"brand_new": 7}, "brand_new = 7"),
        ({"architectures": ["BertForMultipleChoice"]}, "unknown architecture .*BertForMultipleChoice"),
        ({"hidden_act": "mish"}, "hidden_act = 'mish'"),
        ({"architectures": ["BertForTokenClassification"], "id2label": {"0": "a", "2": "b"}}, "maps 0, 1, 2"),
        ({"architectures": ["BertForQuestionAnswering"], "id2label": {"0": "a"}}, "an answer has two ends"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path: Path, changed: dict[str, Any], named: str):
    tensors, config = legacy(("bert", 0, "ForMaskedLM"), tmp_path)
    put(tmp_path, tensors, config | changed)
    with pytest.raises(ConfigError, match=named):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}}, "have no scaling"),
        ({"rope_parameters": {"full_attention": {"partial_rotary_factor": 0.5}}}, "whole heads turn"),
        ({"rope_parameters": {"elsewhere": {}}}, "elsewhere"),
        ({"classifier_pooling": "max"}, "classifier_pooling = 'max'"),
        ({"layer_types": ["chunked_attention"] * 4}, "chunked_attention"),
    ],
)
def test_positions_and_poolings_that_are_not_supported_are_named(tmp_path: Path, changed: dict[str, Any], named: str):
    tensors, config = legacy(("modernbert", 0, "Model"), tmp_path)
    put(tmp_path, tensors, config | changed)
    with pytest.raises(ConfigError, match=named):
        opened(tmp_path)


def test_the_first_configs_of_modernbert(tmp_path: Path):
    """What it said before rope_parameters and layer_types."""
    tensors, config = legacy(("modernbert", 0, "ForMaskedLM"), tmp_path)
    plain, _ = opened(tmp_path)
    for key in ("rope_parameters", "layer_types"):
        del config[key]
    old = {"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
    put(tmp_path, tensors, config | old | {"layer_norm_eps": 1e-5, "position_embedding_type": "absolute"})
    assert opened(tmp_path)[0].config == plain.config


def test_missing_and_left_over_tensors_are_named(tmp_path: Path):
    tensors, config = legacy(("roberta", 0, "ForMaskedLM"), tmp_path)
    put(tmp_path, tensors | {"roberta.mystery": torch.ones(1)}, config)
    with pytest.raises(DamagedFile, match=r"left over: roberta\.mystery"):
        opened(tmp_path)
    del tensors["lm_head.dense.weight"]
    put(tmp_path, tensors, config)
    with pytest.raises(DamagedFile, match=r"missing: lm_head\.dense\.weight"):
        opened(tmp_path)


def test_the_first_family_that_can_express_it_is_taken():
    fields: dict[str, Any] = {"vocab_size": 30, "layers": 2, "width": 32, "heads": 4}
    assert expressible(EncoderConfig(**fields))[0].model_type == "modernbert"
    bert = {"norm_bias": True, "norm_place": "sum", "position": "learned", "gated": False, "token_types": 2}
    biases = dict.fromkeys(("attention_bias", "output_bias", "mlp_bias", "head_dense_bias"), True)
    assert expressible(EncoderConfig(**fields, **bert, **biases))[0].model_type == "bert"
    assert expressible(EncoderConfig(**fields, **bert, **biases, position_offset=2))[0].model_type == "roberta"
    assert expressible(EncoderConfig(**fields, **bert, **biases, embed_width=8))[0].model_type == "electra"
    with pytest.raises(ConfigError, match="embed_norm is False, there it is True"):
        expressible(EncoderConfig(**fields, embed_norm=False))


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression", None])
def test_what_a_classification_is_of_is_kept(problem: str | None, tmp_path: Path):
    config = {"architectures": ["BertForSequenceClassification"], "num_labels": 3, "problem_type": problem}
    read = FAMILIES["bert"].to_config({"model_type": "bert", **BERT, **config})
    assert isinstance(read, EncoderConfig)
    assert read.labelling == {"multi_label_classification": "several", "regression": "number", None: "one"}[problem]
    assert FAMILIES["bert"].from_config(read).get("problem_type") == problem
    with pytest.raises(ConfigError, match="problem_type = 'ranking'"):
        FAMILIES["bert"].to_config({"model_type": "bert", **BERT, **config, "problem_type": "ranking"})
