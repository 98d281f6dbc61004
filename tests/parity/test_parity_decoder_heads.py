"""Published decoders with other heads than the next token's compute what they compute in transformers, and go back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import Float64, masks, token_ids, write_checkpoint
from safetensors.torch import load_file, save_file
from test_parity_decoders import EAGER, LENGTH, SHAPES

from cutaway import load_model, save_model
from cutaway.errors import ConfigError, DamagedFile
from cutaway.files import read_json, write_json
from cutaway.models import ActiveTap, Decoder, DecoderConfig, Model, embed
from cutaway.models.families import FAMILIES
from cutaway.models.formats.huggingface import open_huggingface, write_huggingface
from cutaway.tokenizers import train_tokenizer

transformers = pytest.importorskip("transformers")

HEADS = {
    "none": "Model",
    "sequence_classification": "ForSequenceClassification",
    "token_classification": "ForTokenClassification",
    "span_extraction": "ForQuestionAnswering",
}
# every class that transformers has, each with another of its family's shapes
CASES = [
    (family, number % len(SHAPES[family][2]), architecture)
    for family in SHAPES
    for number, architecture in enumerate(name for name, head in FAMILIES[family].heads.items() if head in HEADS)
]


def write(case: tuple[str, int, str], folder: Path, **keys: Any) -> Any:
    family, number, architecture = case
    config_class, _, shapes = SHAPES[family]
    labels = {"num_labels": 3 + number} if "Classification" in architecture else {}
    config = getattr(transformers, config_class)(**shapes[number], **labels, **keys)
    config.pad_token_id = config.vocab_size - 1  # theirs finds the last real token by it
    config._attn_implementation = config._experts_implementation = "eager"
    return write_checkpoint(lambda: getattr(transformers, architecture)(config), folder)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("peer")
    return write(request.param, folder), folder


def opened(folder: Path, dtype: torch.dtype | None = None) -> tuple[Decoder, Any]:
    network, origin = open_huggingface(folder, dtype)
    assert isinstance(network, Decoder)
    return network, origin


def output(theirs: Any) -> torch.Tensor:
    if "start_logits" in theirs:
        return torch.stack((theirs.start_logits, theirs.end_logits), dim=-1)
    return theirs.logits if "logits" in theirs else theirs.last_hidden_state


def written(folder: Path) -> tuple[dict[str, torch.Tensor], Any]:
    return load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())


def same(ours: Path, theirs: Path) -> bool:
    (a, config), (b, expected) = written(ours), written(theirs)
    equal = all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in b)
    return a.keys() == b.keys() and equal and config == expected


def test_every_class_is_tried():
    for name, family in FAMILIES.items():
        if family.config is not DecoderConfig:
            continue
        start = next(a for a, head in family.heads.items() if head == "none").removesuffix("Model")
        there = {start + end for end in HEADS.values() if hasattr(transformers, start + end)}
        assert there == {architecture for family, _, architecture in CASES if family == name}
    assert {FAMILIES[family].heads[architecture] for family, _, architecture in CASES} == set(HEADS)


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
    padding, largest = network.config.vocab_size - 1, 0.0
    for mask in masks(3, min(LENGTH, network.config.context)).values():
        ids = token_ids(padding, 3, min(LENGTH, network.config.context))
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        ids = ids.masked_fill(~real, padding)
        given = {} if mask is None else {"attention_mask": real.long()}
        positions = (real.cumsum(1) - 1).clamp(min=0)
        with Float64() if exact else torch.no_grad():
            theirs = peer(ids, position_ids=positions, output_hidden_states=True, **given)
        expected = output(theirs)
        seen: dict[str, torch.Tensor] = {}
        names = ["embed", *(f"layers.{i}.resid_post" for i in range(network.config.layers - 1)), "final_norm"]
        found = network(ids, mask=mask, tap=ActiveTap(names, sink=seen.__setitem__))
        assert torch.equal(found, network(ids, mask=mask))
        assert found.dtype == expected.dtype == dtype
        assert found.shape == expected.shape
        difference = (found - expected).abs()
        largest = max(largest, float((difference[real] if found.shape[:2] == ids.shape else difference).max()))
        for ours, hidden in zip(map(seen.__getitem__, names), theirs.hidden_states, strict=True):
            assert (ours - hidden)[real].abs().max() <= bound * max(1.0, float(hidden[real].abs().max()))
    record_property(f"{peer.config.model_type} {dtype}", largest)
    assert largest <= bound


@torch.no_grad()
def test_round_trip_and_written_anew(case: tuple[Any, Path], tmp_path_factory: pytest.TempPathFactory):
    peer, folder = case
    network, origin = opened(folder)
    back, anew = tmp_path_factory.mktemp("back"), tmp_path_factory.mktemp("anew")
    write_huggingface(network, back, origin=origin, extra={})
    assert same(back, folder)
    # the config is spelled by the family file alone
    write_huggingface(network, anew, family=origin.family, extra={"pad_token_id": network.config.vocab_size - 1})
    again = type(peer).from_pretrained(anew, dtype=torch.float32, **EAGER).eval()
    assert again.config.architectures == peer.config.architectures
    assert opened(anew)[0].config == network.config
    ids = token_ids(network.config.vocab_size - 1, 2, min(LENGTH, network.config.context))
    assert (output(again(ids)) - output(peer(ids))).abs().max() <= 1e-5


def put(folder: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def test_labels_are_those_of_the_config(tmp_path: Path):
    names = {"0": "没有", "1": "some", "2": "all"}
    write(("qwen3", 0, "Qwen3ForSequenceClassification"), tmp_path)
    tensors, config = written(tmp_path)
    put(tmp_path, tensors, config | {"id2label": names, "label2id": {name: int(i) for i, name in names.items()}})
    network, _ = opened(tmp_path)
    assert network.config.labels == ("没有", "some", "all")
    anew = tmp_path / "anew"
    anew.mkdir()
    write_huggingface(network, anew, family="qwen3", extra={})
    assert written(anew)[1]["id2label"] == names
    put(tmp_path, tensors, config | {"id2label": {"0": "a", "1": "b"}})
    with pytest.raises(DamagedFile, match=r"head\.out\.weight has shape \(3, 32\) instead of \(2, 32\)"):
        opened(tmp_path)


def test_what_a_family_has_no_class_for_is_named(tmp_path: Path):
    write(("llama", 0, "LlamaForTokenClassification"), tmp_path)
    network, _ = opened(tmp_path)
    with pytest.raises(ConfigError, match="head is 'token_classification', there it is one of causal_lm, none, seq"):
        write_huggingface(network, tmp_path, family="olmo2", extra={})
    tensors, config = written(tmp_path)
    put(tmp_path, tensors, config | {"architectures": ["LlamaModel"]})
    with pytest.raises(DamagedFile, match=r"left over: score\.bias, score\.weight"):
        opened(tmp_path)
    put(tmp_path, tensors, config | {"token_classification_bias": False})
    with pytest.raises(ConfigError, match="token_classification_bias = False"):
        opened(tmp_path)


TEXTS = ["the cat sat on the mat", "a mat", "sat, sat, sat: the mat on which the cats sat 你好", "the"]


def vectors(folder: Path, architecture: str, pooling: str, *, tied: bool) -> Any:
    """A folder as sentence-transformers writes it, and the network in it; its tokenizer ends every text."""
    tokenizer = train_tokenizer(TEXTS * 3, "bpe", 300)
    tokenizer.save(folder)
    end = tokenizer.end_of_text
    assert end is not None
    name, spec = tokenizer.token(end), read_json(folder / "tokenizer.json")
    text, last = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": name, "type_id": 0}}
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [text, last],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 0}}, last],
        "special_tokens": {name: {"id": name, "ids": [end], "tokens": [name]}},
    }
    write_json(folder / "tokenizer.json", spec)
    write_json(folder / "tokenizer_config.json", {"pad_token": name, "padding_side": "left"})
    start = architecture.removesuffix("Model").removesuffix("ForCausalLM")
    sizes = SHAPES[start.lower()][2][0] | {"vocab_size": tokenizer.vocab_size, "tie_word_embeddings": tied}
    config = getattr(transformers, f"{start}Config")(**sizes)
    peer = write_checkpoint(lambda: getattr(transformers, f"{start}Model")(config), folder)
    write_json(folder / "config.json", read_json(folder / "config.json") | {"architectures": [architecture]})
    steps = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{step}"}
        for i, (step, path) in enumerate(steps.items())
    ]
    write_json(folder / "modules.json", listed)
    (folder / "1_Pooling").mkdir()
    stated = {"word_embedding_dimension": config.hidden_size, f"pooling_mode_{pooling}": True, "include_prompt": True}
    write_json(folder / "1_Pooling" / "config.json", stated)
    return peer


@pytest.mark.parametrize(
    ("architecture", "pooling", "tied"),
    [
        ("Qwen3ForCausalLM", "lasttoken", True),  # as Qwen3-Embedding is published
        ("Qwen3ForCausalLM", "lasttoken", False),
        ("MistralModel", "mean_tokens", False),
        ("LlamaModel", "lasttoken", True),
    ],
)
@torch.no_grad()
def test_vectors_of_texts(tmp_path: Path, architecture: str, pooling: str, tied: bool):
    """What sentence-transformers does with such a folder, in its plainest form."""
    folder, back = tmp_path / "given", tmp_path / "back"
    folder.mkdir()
    peer = vectors(folder, architecture, pooling, tied=tied)
    given = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    real = given["attention_mask"]
    assert not real[:, 0].all()  # the padding stands before the texts
    states = peer(given["input_ids"], attention_mask=real, position_ids=(real.cumsum(1) - 1).clamp(min=0))[0]
    weights = real[..., None].float()
    pooled = states[:, -1] if pooling == "lasttoken" else (states * weights).sum(1) / weights.sum(1)
    expected = torch.nn.functional.normalize(pooled, dim=-1)
    model = load_model(folder)
    assert (embed(model, TEXTS) - expected).abs().max() <= 1e-5
    assert (model.network(given["input_ids"], mask=real.bool()) - expected).abs().max() <= 1e-5
    assert torch.equal(model.logits(TEXTS[0])[0], embed(model, TEXTS[:1])[0])
    save_model(model, back, "huggingface")
    assert same(back, folder)
    assert read_json(back / "modules.json") == read_json(folder / "modules.json")
    save_model(model, tmp_path / "own")
    save_model(Model(model.network, model.tokenizer), tmp_path / "anew", "huggingface")
    for again in map(load_model, (back, tmp_path / "own", tmp_path / "anew")):
        assert again.config == model.config
        assert torch.equal(embed(again, TEXTS), embed(model, TEXTS))


@torch.no_grad()
def test_an_output_matrix_beside_the_pooling(tmp_path: Path):
    """The embedding once more is known as such; another one makes a language model, and nothing is dropped."""
    vectors(tmp_path, "Qwen3ForCausalLM", "lasttoken", tied=True)
    tensors, config = written(tmp_path)
    put(tmp_path, tensors | {"lm_head.weight": tensors["embed_tokens.weight"]}, config)
    assert opened(tmp_path)[0].config.head == "embedding"
    put(tmp_path, tensors | {"lm_head.weight": tensors["embed_tokens.weight"] + 1}, config)
    with pytest.raises(DamagedFile, match=r"lm_head\.weight is the embedding once more"):
        opened(tmp_path)
    put(
        tmp_path,
        tensors | {"lm_head.weight": tensors["embed_tokens.weight"] + 1},
        config | {"tie_word_embeddings": False},
    )
    assert opened(tmp_path)[0].config.head == "causal_lm"
