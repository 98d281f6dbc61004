"""generation_config.json: read, used, written back; against transformers, which generates from the same folder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from cutaway import load_model, save_model
from cutaway.cli import main
from cutaway.errors import ConfigError, DamagedFile
from cutaway.generation import generate
from cutaway.models import DecoderConfig, Model, build_network
from cutaway.models.generation_config import GenerationConfig, parse_generation, read_generation
from cutaway.tokenizers import train_tokenizer

# of the shapes that published files have
CHAT = {
    "bos_token_id": 3,
    "do_sample": True,
    "eos_token_id": [5, 7],
    "pad_token_id": 1,
    "repetition_penalty": 1.05,
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.8,
    "transformers_version": "4.51.0",
}
TRANSLATION = {
    "_from_model_config": True,
    "bad_words_ids": [[9]],
    "decoder_start_token_id": 9,
    "eos_token_id": 0,
    "forced_eos_token_id": 0,
    "length_penalty": 0.6,
    "max_length": 512,
    "num_beams": 4,
    "no_repeat_ngram_size": None,
    "renormalize_logits": True,
}
SPEECH = {
    "begin_suppress_tokens": [220, 50257],
    "forced_decoder_ids": [[1, None], [2, 50359]],
    "is_multilingual": True,
    "lang_to_id": {"<|en|>": 50259},
    "max_length": 448,
    "suppress_tokens": [1, 2, 7],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = train_tokenizer(["the cat sat on the mat"], "char", 300)
    torch.manual_seed(0)
    config = DecoderConfig(vocab_size=tokenizer.vocab_size, context=64, layers=2, width=16, heads=2, tied=False)
    return save_model(Model(build_network(config), tokenizer), tmp_path_factory.mktemp("made") / "m", "huggingface")


def folder_with(made: Path, tmp_path: Path, values: object) -> Path:
    folder = save_model(load_model(made), tmp_path / "m", "huggingface")
    (folder / "generation_config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("values", [CHAT, TRANSLATION, SPEECH, {}])
def test_what_is_read_is_written_back_in_both_formats(values: dict, made: Path, tmp_path: Path) -> None:
    model = load_model(folder_with(made, tmp_path, values))
    for format in ("huggingface", "cutaway"):
        folder = save_model(model, tmp_path / format, format)
        file = folder / "generation_config.json"
        assert (json.loads(file.read_text()) if file.is_file() else {}) == values
        assert load_model(folder).generation == model.generation


def test_the_fields_are_those_of_the_file() -> None:
    chat = parse_generation(CHAT, "f")
    assert (chat.eos_token_id, chat.temperature, chat.top_k, chat.do_sample) == ((5, 7), 0.7, 20, True)
    assert chat.notes == []
    text = parse_generation(TRANSLATION, "f")
    assert (text.eos_token_id, text.forced_eos_token_id, text.decoder_start_token_id) == ((0,), (0,), 9)
    assert text.suppressed == (9,)
    speech = parse_generation(SPEECH, "f")
    assert (speech.begin_suppress_tokens, speech.suppressed) == ((220, 50257), (1, 2, 7))


def test_what_is_not_used_is_told() -> None:
    notes = parse_generation(TRANSLATION | {"bad_words_ids": [[9], [1, 2]]}, "f").notes
    assert [note.split(": ")[1].split(" is not used")[0] for note in notes] == [
        "bad_words_ids",
    ]
    assert parse_generation({"num_beams": 1, "length_penalty": 1.0, "use_cache": False, "new": None}, "f").notes == []
    assert parse_generation({"surprise": 3}, "f").notes == [
        "generation_config.json: surprise is not used (Cutaway does not know it)"
    ]
    assert parse_generation({f"k{i}": 1 for i in range(50)}, "f").notes[-1] == "… and 30 more"


def test_a_changed_recommendation_is_written_over_what_was_read() -> None:
    config = dataclasses.replace(parse_generation(CHAT, "f"), temperature=0.5, eos_token_id=(5,), top_k=None)
    assert config.to_json() == {k: v for k, v in CHAT.items() if k != "top_k"} | {"temperature": 0.5, "eos_token_id": 5}


def test_a_fresh_export_names_the_special_tokens(made: Path) -> None:
    model = load_model(made)
    assert json.loads((made / "generation_config.json").read_text()) == {
        "eos_token_id": model.tokenizer.end_of_text,
        "pad_token_id": model.tokenizer.pad,
    }
    theirs = transformers.GenerationConfig.from_pretrained(made)
    assert (theirs.eos_token_id, theirs.pad_token_id) == (model.tokenizer.end_of_text, model.tokenizer.pad)


def ids_of(model: Model, prompt: str, **options: Any) -> list[int]:
    return generate(model, prompt, **options).ids


@pytest.mark.parametrize(
    "values", [{}, {"suppress_tokens": [97, 98]}, {"repetition_penalty": 1.7}, {"max_new_tokens": 7}]
)
def test_greedy_texts_are_those_of_transformers(values: dict, made: Path, tmp_path: Path) -> None:
    model = load_model(made)
    plain = ids_of(model, "the cat", temperature=0, max_new_tokens=20)
    # several tokens end a text: the first of them that comes does
    values = {
        "do_sample": False,
        "max_new_tokens": 20,
        "eos_token_id": [plain[12], plain[4]],
        "pad_token_id": 0,
    } | values
    if "suppress_tokens" in values:
        values |= {"suppress_tokens": plain[1:3], "begin_suppress_tokens": [plain[0]]}
    folder = folder_with(made, tmp_path, values)
    ours = generate(load_model(folder), "the cat")
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    prompt = model.ids("the cat")
    made_by_them = theirs.generate(prompt, attention_mask=torch.ones_like(prompt))[0, prompt.shape[1] :].tolist()
    assert ours.ids == made_by_them
    if "suppress_tokens" in values:
        assert not set(values["suppress_tokens"]) & set(ours.ids)
        assert ours.ids[0] != plain[0]
    elif len(values) == 4:
        assert ours.ids == plain[: min(plain.index(plain[4]), plain.index(plain[12])) + 1]
        assert ours.finish_reason == "end"


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_an_encoder_decoder_follows_what_is_forced_and_suppressed(family: str, made: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    size, folder = load_model(made).tokenizer.vocab_size, tmp_path / "m"
    small: dict[str, Any] = {
        "vocab_size": size,
        "d_model": 16,
        "pad_token_id": 1,
        "decoder_start_token_id": 2,
        "eos_token_id": 3,
    }
    if family == "bart":
        layers = {
            f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 1), ("ffn_dim", 24))
        }
        heads: dict[str, Any] = {
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "max_position_embeddings": 60,
        }
        config = transformers.BartConfig(**small, **layers, **heads, init_std=1.0, forced_eos_token_id=None)
        theirs: Any = transformers.BartForConditionalGeneration(config).eval()
    else:
        config = transformers.T5Config(**small, num_layers=1, num_heads=2, d_kv=8, d_ff=24, initializer_factor=8.0)
        theirs = transformers.T5ForConditionalGeneration(config).eval()
    theirs.save_pretrained(folder)
    load_model(made).tokenizer.save(folder)
    ids = load_model(folder).source_ids("the cat")

    def both(**values: Any) -> list[int]:
        said = {"decoder_start_token_id": 2, "eos_token_id": 3, "pad_token_id": 1, "max_length": 14} | values
        (folder / "generation_config.json").write_text(json.dumps(said))
        wanted = transformers.GenerationConfig.from_pretrained(folder)
        text = theirs.generate(ids, generation_config=wanted, attention_mask=torch.ones_like(ids))[0, 1:].tolist()
        assert generate(load_model(folder), "the cat").ids == text
        return text

    plain = both()
    assert len(plain) == 13
    assert both(suppress_tokens=plain[2:3], begin_suppress_tokens=plain[:1])[0] != plain[0]
    assert both(forced_bos_token_id=7, forced_eos_token_id=3, begin_suppress_tokens=[9])[::12] == [7, 3]
    assert both(decoder_start_token_id=5, bad_words_ids=[plain[:1]]) != plain
    assert both(eos_token_id=[plain[5], 3])[-1] == plain[5]


def test_recommendations_are_what_is_not_said(made: Path, tmp_path: Path) -> None:
    model = load_model(folder_with(made, tmp_path, CHAT))
    said = {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05}
    bare = load_model(made)
    bare.generation = GenerationConfig(eos_token_id=(5, 7))
    assert ids_of(model, "the") == ids_of(bare, "the", **said)
    assert ids_of(model, "the", temperature=2.0) == ids_of(bare, "the", **said | {"temperature": 2.0})
    off = {"top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0, "temperature": 1.0}
    assert ids_of(model, "the", **off) == ids_of(bare, "the", temperature=1.0)
    bare.generation = GenerationConfig()
    assert ids_of(bare, "the") == ids_of(bare, "the", temperature=0.8, max_new_tokens=100)
    bare.generation = GenerationConfig(do_sample=False, max_length=9)
    assert len(ids_of(bare, "the cat")) == 2
    assert len(ids_of(bare, "the cat", max_new_tokens=4)) == 4
    bare.generation = GenerationConfig(stop_strings=("zzz",), top_p=0.0, max_length=3)
    assert len(ids_of(bare, "the cat")) == 1


def test_the_command_tells_what_is_not_used(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_with(made, tmp_path, {"no_repeat_ngram_size": 4, "do_sample": False, "max_new_tokens": 3})
    assert main(["generate", str(folder), "--prompt", "the"]) == 0
    out = capsys.readouterr()
    assert out.err == (
        "note: generation_config.json: no_repeat_ngram_size is not used "
        "(repetition_penalty is what there is against repetition)\n"
    )
    assert out.out == "the" + generate(load_model(folder), "the", temperature=0, max_new_tokens=3).text + "\n"


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"temperature": "hot"}, ConfigError, "temperature in .*generation_config.json must be float"),
        ({"temperature": -1}, ConfigError, "temperature in .* must be at least 0"),
        ({"temperature": 1e400}, ConfigError, "temperature in .* must be a finite number, but inf"),
        ({"eos_token_id": "</s>"}, ConfigError, "eos_token_id in"),
        ({"eos_token_id": [-7]}, ConfigError, "the token -7"),
        ({"suppress_tokens": [[1]]}, ConfigError, "suppress_tokens in"),
        ({"max_new_tokens": 0}, ConfigError, "max_new_tokens in .* must be at least 1"),
        ({"do_sample": 1}, ConfigError, "do_sample in"),
        ([], DamagedFile, "must hold a JSON object"),
    ],
)
def test_what_is_wrong_is_named(values: object, error: type, words: str, made: Path, tmp_path: Path) -> None:
    folder = folder_with(made, tmp_path, values)
    with pytest.raises(error, match=words):
        load_model(folder)
    (folder / "generation_config.json").write_text("[" * 100_000)
    with pytest.raises(DamagedFile, match="generation_config"):
        read_generation(folder)


def test_tokens_that_the_vocabulary_does_not_have_cannot_come_anyway(made: Path, tmp_path: Path) -> None:
    model = load_model(folder_with(made, tmp_path, {"suppress_tokens": [10**6, -1], "eos_token_id": 10**6}))
    assert len(ids_of(model, "the", max_new_tokens=5)) == 5
