"""Translation of a toy language whose words are other words, backwards: learned, searched, held to terms, told why."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cutaway.cli import main
from cutaway.errors import ConfigError, InputError
from cutaway.interp.attribution.spans import groups
from cutaway.models import Model, Seq2Seq, Seq2SeqConfig, load_model
from cutaway.tasks import TaskConfig, Trained, open_task, train_task
from cutaway.tasks.translate.align import attention, rows_of
from cutaway.tasks.translate.decode import Draft, Part
from cutaway.tasks.translate.files import translate_file, translate_lines
from cutaway.tasks.translate.task import _aligned, _told
from cutaway.tokenizers import train_tokenizer

# of two words there is another, which is rare
OTHERS: dict[str, str] = {"zwei": "zwo", "Katze": "Mieze"}
WORDS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fuenf", "six": "sechs", "cat": "Katze"}


def reversed_words(text: str) -> str:
    """The translation."""
    return " ".join(WORDS[word] for word in reversed(text.split()))


def with_others(text: str, draw: random.Random) -> str:
    """The same with a rare word now and then."""
    return " ".join(OTHERS[word] if word in OTHERS and draw.random() < 0.15 else word for word in text.split())


def sentences(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choice(list(WORDS)) for _ in range(draw.randint(2, 5))) for _ in range(count)]


def write_translator(folder: Path, family: str) -> Path:
    """A published translator, made by transformers with random weights."""
    import transformers

    tokenizer = train_tokenizer(list(WORDS) + list(WORDS.values()), "bpe", 320)
    end = tokenizer.end_of_text
    small: dict[str, Any] = {"vocab_size": tokenizer.vocab_size, "d_model": 16, "pad_token_id": end}
    small |= {"eos_token_id": end, "decoder_start_token_id": end}
    torch.manual_seed(0)
    if family == "t5":
        small |= {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}
        config = transformers.T5Config(**small, num_layers=1, num_heads=2, d_kv=8, d_ff=24)
        network: Any = transformers.T5ForConditionalGeneration(config)
    else:
        small |= {f"{side}_{what}": n for side in ("encoder", "decoder")
                  for what, n in (("layers", 1), ("ffn_dim", 24), ("attention_heads", 2))}  # fmt: skip
        config = transformers.MarianConfig(**small, max_position_embeddings=64, forced_eos_token_id=None)
        network = transformers.MarianMTModel(config)
    network.save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("translate")
    data = folder / "pairs.tsv"
    draw = random.Random(9)
    rows = [f"{text}\t{with_others(reversed_words(text), draw)}" for text in sentences(1500, 0)]
    data.write_text("\n".join(["source\ttarget", *rows]) + "\n", "utf-8")
    sizes = {"size": 1, "vocab_size": 320, "context": 32, "network": {"heads": 4, "layers": 2}}
    how = {"epochs": 10, "batch": 32, "dropout": 0.0, "evaluations": 2, "valid": 0.03, "test": 0.03, "threads": 1}
    return train_task(TaskConfig("translate", str(data), str(folder / "model"), **sizes, **how))


def test_it_learns(trained: Trained):
    assert trained.report is not None
    assert trained.report.baseline is not None
    assert trained.report.figures["bleu"].value > 80 > trained.report.baseline["bleu"].value
    assert trained.report.p is not None
    assert trained.report.p < 0.01
    texts = sentences(40, 1)
    answers = trained.model.predict(texts)
    right = [answer.answer == reversed_words(text) for answer, text in zip(answers, texts, strict=True)]
    assert np.mean(right) > 0.95
    assert all(0 < (answer.probability or 0) <= 1 for answer in answers)
    assert all(answer.more["finished"] for answer in answers)


def test_a_batch_and_one_alone_are_the_same(trained: Trained):
    texts = sentences(12, 2)
    together = [answer.answer for answer in trained.model.predict(texts)]
    assert together == [trained.model.predict([text])[0].answer for text in texts]


def test_its_folder_opens_and_translates_the_same(trained: Trained):
    again = open_task(trained.folder)
    texts = ["one two cat", "six five four"]
    assert [a.to_json() for a in again.predict(texts)] == [a.to_json() for a in trained.model.predict(texts)]
    assert again.kept["attention"].shape == (2,)


def test_the_alignment_runs_backwards(trained: Trained):
    texts = [text for text in sentences(40, 3) if len(set(text.split())) == len(text.split())]
    for answer, text in zip(trained.model.predict(texts), texts, strict=True):
        if answer.answer != reversed_words(text):
            continue
        (found,) = answer.more["alignment"]
        assert found["source"] == text.split()
        assert found["target"] == answer.answer.split()
        weights = np.array(found["weights"])  # (S, T)
        assert weights.shape == (len(found["source"]), len(found["target"]))
        assert weights.sum(0) == pytest.approx(1, abs=0.01)
        assert weights.argmax(0).tolist() == list(range(len(found["source"])))[::-1]


def test_words_behind_a_special_token_keep_their_places():
    tokenizer = train_tokenizer(list(WORDS) + list(WORDS.values()), "bpe", 320)
    torch.manual_seed(0)
    network = Seq2Seq(Seq2SeqConfig(tokenizer.vocab_size, context=16, source_context=16, layers=1, width=32, heads=2))
    model, end = Model(network, tokenizer), tokenizer.end_of_text or 0
    source, words = tokenizer.encode("one two"), [tokenizer.encode(word) for word in ("eins", "zwei")]
    (part,) = attention(model, [Part("", source, [*words[0], end, *words[1]], [], True, "eins zwei")])
    draft = Draft("eins zwei", (part,))
    (found,) = _aligned(draft, _told(model, draft), 0, 0)["alignment"]
    assert found["target"] == ["eins", "zwei"]
    rows = rows_of(part, 0, 0)[len(words[0]) + 1 :]  # behind the special one
    assert np.array(found["weights"])[:, 1].sum() == pytest.approx(rows.sum(1).mean(), abs=1e-3)
    first = groups(tokenizer, source, "word")[0][1]
    assert found["weights"][0][1] == pytest.approx(rows[:, first].sum(1).mean(), abs=1e-3)


def test_what_a_word_is_owed_to(trained: Trained):
    text = "one two three cat"
    for method in ("erasure", "alignment"):
        matrix = trained.model.why(text, method=method)
        assert matrix.values.argmax(0).tolist() == [3, 2, 1, 0]
        assert [word.strip() for word in matrix.rows] == text.split()
    for part, word in enumerate(reversed(text.split())):
        found = trained.model.why(text, part=part)
        scored = zip(found.scores, found.tokens, found.parts, strict=True)
        assert max((score, token.strip()) for score, token, side in scored if side == "source")[1] == word
    for method in ("gradient", "integrated_gradients"):
        found = trained.model.why(text, method=method, part=1)
        assert found.parts.count("source") == 4
    with pytest.raises(InputError, match="has 4 words; ask about one of 0 … 3"):
        trained.model.why(text, part=4)
    with pytest.raises(ConfigError, match="occlusion"):
        trained.model.why(text, method="guess")
    assert "method='erasure'" in trained.model.why(text, method="erasure").receipt.code


def test_terms_are_in_every_translation_and_the_rest_stays(trained: Trained):
    texts = sentences(30, 4)
    terms = {"two": "zwo", "cat": "Mieze"}
    held = replace(trained.model, task=replace(trained.model.task, terms=terms), engine=None)
    exact = []
    for text, answer in zip(texts, held.predict(texts), strict=True):
        due = [term for word, term in terms.items() if word in text.split()]
        assert set(due) <= set(answer.answer.split())
        assert sorted(answer.more.get("terms", [])) == sorted(due)
        assert not answer.more.get("missing")
        common = {rare: word for word, rare in OTHERS.items()}
        plain = " ".join(str(common.get(word, word)) for word in answer.answer.split())
        exact.append(plain == reversed_words(text))
    assert np.mean(exact) > 0.9
    strange = replace(trained.model, task=replace(trained.model.task, terms={"six": "Halbdutzend"}), engine=None)
    assert all("Halbdutzend" in answer.answer for answer in strange.predict(["one six", "six", "cat six two"]))


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_file_keeps_its_lines(trained: Trained, tmp_path: Path, mark: str):
    text = mark + "one two\r\n\n  \n\u200b\nthree cat\nsix five"
    path = tmp_path / "in.txt"
    path.write_bytes(text.encode())
    made, answers = translate_file(trained.model, path)
    assert made == mark + "zwei eins\r\n\n  \n\u200b\nKatze drei\nfuenf sechs"
    assert [answer is None for answer in answers] == [False, True, True, True, False, False]
    path.write_bytes(b"one two\n\xff\n")
    with pytest.raises(InputError, match=r"in\.txt:2 is not UTF-8"):
        translate_file(trained.model, path)
    path.write_bytes(b"")
    assert translate_file(trained.model, path) == ("", [])
    path.write_bytes(b"\n\n")
    assert translate_file(trained.model, path)[0] == "\n\n"


def test_a_long_line_is_translated_by_sentences(trained: Trained):
    some = [text.capitalize() for text in sentences(12, 5)]
    line = ". ".join(some) + "."
    (answer,) = list(translate_lines(trained.model, [line], alignment=True))
    assert answer is not None
    assert len(answer.more["alignment"]) == len(some)
    found = trained.model.why(line, part=len(some[0].split()))
    assert found.parts.count("source") >= len(some[1].split())
    assert "\n" not in answer.answer
    (answer,) = trained.model.predict(["one two\n\ncat four"])
    assert answer.answer == "zwei eins\n\nvier Katze"


def test_the_command_line_translates(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, out, terms = tmp_path / "in.txt", tmp_path / "out.txt", tmp_path / "terms.tsv"
    path.write_text("one two\n\ncat four\n", "utf-8")
    terms.write_text("cat\tSamtpfote\n", "utf-8")
    run = ["task", "translate", str(trained.folder), str(path)]
    assert main([*run, "--out", str(out), "--terms", str(terms)]) == 0
    lines = out.read_text("utf-8").split("\n")
    assert lines[:2] == ["zwei eins", ""]
    assert "Samtpfote" in lines[2].split()
    assert len(lines) == 4
    capsys.readouterr()
    assert main([*run, "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["answer"] for one in told] == ["zwei eins", "", "vier Katze"]
    assert told[0]["source"] == f"{path}:1"
    assert told[0]["alignment"][0]["target"] == ["zwei", "eins"]


@pytest.mark.parametrize("family", ["marian", "t5"])
def test_it_begins_from_a_checkpoint(family: str, tmp_path: Path):
    base = write_translator(tmp_path / "base", family)
    data = tmp_path / "pairs.tsv"
    data.write_text("source\ttarget\n" + "\n".join(f"{t}\t{reversed_words(t)}" for t in sentences(80, 6)), "utf-8")
    config = TaskConfig("translate", str(data), str(tmp_path / "model"), start=str(base), epochs=2, lr=1e-3, batch=16,
                        evaluations=1, test=0, threads=1)  # fmt: skip
    made = train_task(config)
    before = load_model(base).network.state_dict()
    after = made.model.model.network.state_dict()
    moved = [name for name in after if not torch.equal(after[name], before[name])]
    assert "lm_head.weight" in moved
    for name in after:  # it went on from there
        assert (after[name] - before[name]).abs().max() < 0.2
    assert isinstance(made.model.predict(["one two"])[0].answer, str)
