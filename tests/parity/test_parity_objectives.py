"""What each objective trains opens in transformers and gives the same logits there."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from cutaway.errors import ConfigError
from cutaway.models import Model, load_model, save_model
from cutaway.tokenizers import TokenStore, prepare_examples, train_tokenizer
from cutaway.training import train, train_config


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, draw = tmp_path_factory.mktemp("data"), random.Random(0)
    texts = ["".join(draw.choice("abcd ") for _ in range(40)) for _ in range(60)]
    TokenStore.from_texts({"train": texts, "valid": texts[:5]}, train_tokenizer(texts, "bpe", 300), folder / "texts")
    rows = [f"{text.strip()}\t{text[::-1].strip()}\t{'xy'[i % 2]}\t{i % 5}" for i, text in enumerate(texts)]
    (folder / "rows.tsv").write_text("\n".join(["text\tback\tclass\tnumber", *rows]))
    found: dict[str, Path] = dict.fromkeys(["masked", "replaced", "span"], folder / "texts")
    columns: dict[str, dict[str, Any]] = {"seq2seq": {"target": "back"}, "classify": {"label": "class"}}
    columns["regress"] = {"label": "number"}
    for name, asked in columns.items():
        made = prepare_examples(
            str(folder / "rows.tsv"), folder / name, text="text", vocab_size=300, valid=0.2, **asked
        )
        found[name] = made.folder
    return found


def exported(stores: dict[str, Path], objective: str, folder: Path, loader: Any, **features: Any) -> tuple[Model, Any]:
    """A trained model, and what transformers opens of it."""
    config = {
        "data": str(stores[objective]),
        "out": str(folder / "run"),
        "objective": objective,
        "steps": 8,
        "lr": 0.02,
    }
    config |= {"network": {"layers": 2, "width": 32, "heads": 2, **features}, "context": 32, "compile": "off"}
    train(train_config({**config, "dtype": "fp32", "tensorboard": "off", "threads": 1}))
    model = load_model(folder / "run")
    save_model(model, folder / "out", format="huggingface")
    return model, loader.from_pretrained(folder / "out").eval()


def gap(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    assert float(ours.abs().max()) > 1e-3  # it has learned something to compare
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize(
    ("objective", "loader"),
    [
        ("masked", transformers.ModernBertForMaskedLM),
        ("classify", transformers.ModernBertForSequenceClassification),
        ("regress", transformers.ModernBertForSequenceClassification),
    ],
)
def test_encoders(stores: dict[str, Path], tmp_path: Path, objective: str, loader: Any):
    model, theirs = exported(stores, objective, tmp_path, loader)
    ids = model.ids("abca bdd c")
    with torch.no_grad():
        expected = theirs(ids, attention_mask=torch.ones_like(ids)).logits
    assert gap(model.logits(ids), expected) < 1e-5
    labels = {"classify": {0: "x", 1: "y"}, "regress": {0: "value"}}.get(objective)
    if labels is not None:
        assert theirs.config.id2label == labels
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("abca bdd c")["input_ids"] == ids[0].tolist()


def test_a_discriminator_with_the_features_of_electra(stores: dict[str, Path], tmp_path: Path):
    """ModernBERT has no such head; an encoder whose norms, biases and positions are BERT's opens as ELECTRA."""
    biases = dict.fromkeys(("norm_bias", "attention_bias", "output_bias", "mlp_bias"), True)
    like = {**biases, "norm_place": "sum", "position": "learned", "gated": False, "token_types": 2}
    model, theirs = exported(stores, "replaced", tmp_path, transformers.ElectraForPreTraining, **like)
    ids = model.ids("abca bdd c")
    with torch.no_grad():
        expected = theirs(ids, attention_mask=torch.ones_like(ids)).logits
    assert gap(model.logits(ids), expected) < 1e-5
    with pytest.raises(ConfigError, match="head is 'replaced_token'"):
        save_model(model, tmp_path / "other", format="huggingface", family="modernbert")


@pytest.mark.parametrize("objective", ["seq2seq", "span"])
def test_encoder_decoders(stores: dict[str, Path], tmp_path: Path, objective: str):
    model, theirs = exported(stores, objective, tmp_path, transformers.T5ForConditionalGeneration)
    source, target = model.source_ids("abca bdd c"), model.ids("dcba a")
    with torch.no_grad():
        expected = theirs(input_ids=source, decoder_input_ids=target).logits
    assert gap(model.logits(target, source=source), expected) < 1e-5
    assert theirs.config.decoder_start_token_id == model.config.start_id == model.tokenizer.pad  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    if objective == "span":
        assert tokenizer.convert_tokens_to_ids("<extra_id_0>") == len(tokenizer) - 1 == theirs.config.vocab_size - 1
    assert tokenizer.eos_token_id == model.tokenizer.end_of_text
