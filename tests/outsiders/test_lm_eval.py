"""lm-eval, the stranger's own program, against the running server: it counts what `cutaway evaluate` counts."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cutaway.evaluation import Scores, evaluate, read_suite
from cutaway.evaluation.boundaries import cut
from cutaway.generation import Engine
from cutaway.models import Decoder, DecoderConfig, Model, load_model, save_model
from cutaway.serve import Settings
from cutaway.tokenizers import train_tokenizer

sys.path.append(str(Path(__file__).parents[1] / "serve"))
from lm_eval_against_server import Counted, ask, differences, environment
from serving import Served, serving  # pyright: ignore[reportMissingImports]  # tests/serve

WORDS = [
    "the",
    "small",
    "old",
    "cat",
    "dog",
    "bird",
    "sleeps",
    "sings",
    "near",
    "behind",
    "river",
    "naïve",
    "猫",
    "it's",
]
ITEMS = 24


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A decoder of random weights whose tokens are of several characters, and reach over the ends of words."""
    draw = random.Random(1)
    texts = [" ".join(draw.choices(WORDS, k=12)) for _ in range(200)]
    tokenizer = train_tokenizer(texts, "bpe", 380)
    torch.manual_seed(3)
    network = Decoder(DecoderConfig(tokenizer.vocab_size, context=256, layers=2, width=32, heads=4))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return str(save_model(Model(network, tokenizer), tmp_path_factory.mktemp("model") / "random"))


@pytest.fixture(scope="module")
def served(source: str) -> Iterator[Served]:
    with serving(Settings(models={"random": source})) as running:
        yield running


@pytest.fixture(scope="module")
def files(source: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Questions of each kind; of half the last words those that the model itself would write."""
    draw, room, model = random.Random(0), tmp_path_factory.mktemp("questions"), load_model(source)

    def words(count: int) -> str:
        return " ".join(draw.choices(WORDS, k=count))

    texts = [words(8) for _ in range(ITEMS)]
    for number, text in enumerate(texts[::2]):
        written = model.generate(text, max_new_tokens=6, temperature=0).text.split(" ")
        texts[2 * number] = f"{text} {written[1]}" if len(written) > 2 and written[0] == "" and written[1] else text
    rows = {
        "pairs": [{"sentence_good": words(6), "sentence_bad": words(6), "UID": f"p{i % 3}"} for i in range(ITEMS)],
        "words": [{"text": text} for text in texts],
        "choices": [
            {"question": words(5), "choices": [words(k) for k in (1, 2, 3, 4)], "answer": i % 4} for i in range(ITEMS)
        ],
    }
    for kind, made in rows.items():
        (room / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")
    return {kind: room / f"{kind}.jsonl" for kind in rows}


@pytest.fixture(scope="module")
def theirs(served: Served, files: dict[str, Path]) -> dict[str, Counted]:
    return ask(served.url, "random", files)


@pytest.fixture(scope="module")
def ours(source: str, files: dict[str, Path]) -> dict[str, Scores]:
    engine = Engine(load_model(source))
    return {kind: evaluate(engine, read_suite(file)) for kind, file in files.items()}


@pytest.mark.parametrize("kind", ["pairs", "words", "choices"])
def test_lm_eval_counts_what_cutaway_counts(kind: str, theirs: dict[str, Counted], ours: dict[str, Scores]) -> None:
    mine = ours[kind]
    figures = {name: {"value": figure.value} for name, figure in mine.figures.items()}
    assert differences(theirs[kind], {**vars(mine), "figures": figures}) == []
    for their, answer in zip(theirs[kind].likelihoods, mine.answers, strict=True):
        assert their == pytest.approx([choice.logprob for choice in answer.choices], abs=1e-4)
    assert 0 < mine.right < mine.items  # else equal counts would say nothing


def test_texts_are_cut_where_lm_eval_cuts_them(source: str, served: Served) -> None:
    model = load_model(source)
    draw = random.Random(2)
    pairs = [("", " the cat"), ("", "猫"), ("the cat ", "sleeps"), ("the  \n ", " cat"), ("naïv", "e 猫"), ("it", "'s")]
    for _ in range(60):
        text = " ".join(draw.choices(WORDS, k=6))
        place = draw.randrange(1, len(text) - 1)
        pairs.append((text[:place], text[place:]))
    pairs = [(context, rest) for context, rest in pairs if context.strip() or not context]
    script = Path(__file__).with_name("lm_eval_cuts.py")
    ran = subprocess.run(
        [str(environment()), str(script), served.url, "random"],
        input=json.dumps(pairs),
        capture_output=True,
        text=True,
        check=True,
    )
    for (context, rest), (before, after) in zip(pairs, json.loads(ran.stdout.splitlines()[-1]), strict=True):
        if not after:  # the continuation only changed the context's last token: lm-eval scores nothing, we say so
            with pytest.raises(ValueError, match="nothing to score"):
                cut(model, context, rest)
            continue
        made = cut(model, context, rest)
        assert (made.ids[: made.start], made.ids[made.start :]) == (before, after)
