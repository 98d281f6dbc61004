"""A tree's probabilities are the model's own, and all of them."""

from collections.abc import Iterator

import pytest
import torch
from kinds import TEXT, given, letters, made

from cutaway.errors import ConfigError, InputError
from cutaway.interp import Branch, generation_tree
from cutaway.interp.text.branches import OTHERS
from cutaway.models import Model


def walk(branch: Branch, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Branch]]:
    yield path, branch
    for child in branch.branches:
        if child.label != OTHERS:
            yield from walk(child, (*path, child.label))


def ids_of(model: Model, labels: tuple[str, ...]) -> list[int]:
    known = {model.tokenizer.token(i): i for i in range(model.tokenizer.vocab_size)}
    return [known[label] for label in labels]


@pytest.mark.parametrize("shape", ["qwen3", "gpt2", "gemma", "gru", "lstm", "t5", "bart", "whisper"])
def test_every_probability_is_the_models_own(shape: str):
    model = made(shape, letters())
    tree = generation_tree(model, "the cat", depth=3, width=3, least=0.0, **given(model))
    start = model.ids("the cat")[0].tolist()
    seen = 0
    for path, branch in walk(tree.root):
        if branch.branches:
            assert sum(child.share for child in branch.branches) == pytest.approx(1, abs=1e-12)
            assert sum(child.total for child in branch.branches) == pytest.approx(branch.total, abs=1e-12)
            logits = model.logits(start + ids_of(model, path), **given(model))[0, -1].double()
            shares, likeliest = logits.softmax(-1).topk(3)
            shown = [child for child in branch.branches if child.label != OTHERS]
            assert [child.share for child in shown] == pytest.approx(shares.tolist(), abs=1e-5)
            assert [child.label for child in shown] == [model.tokenizer.token(i) for i in likeliest.tolist()]
            seen += len(shown)
    assert seen >= 3 + 3 + 3


def test_unlikely_branches_are_left_to_the_others():
    model = made("qwen3", letters())
    tree = generation_tree(model, TEXT, depth=4, width=50, least=0.02)
    for path, branch in walk(tree.root):
        assert branch.total >= 0.02 or not path
        if branch.branches:
            assert sum(child.share for child in branch.branches) == pytest.approx(1, abs=1e-12)
    with torch.no_grad():
        model.network.lm_head.weight.mul_(0)  # pyright: ignore
    flat = generation_tree(model, TEXT, depth=2, width=2, least=0.5)
    assert [child.label for child in flat.root.branches] == [OTHERS]
    assert flat.root.branches[0].share == 1.0


def test_a_branch_that_ends_has_nothing_behind_it():
    model = made("qwen3", letters())
    end = model.tokenizer.end_of_text
    assert end is not None
    tree = generation_tree(model, TEXT, depth=2, width=model.config.vocab_size, least=0.0)
    ended = [branch for path, branch in walk(tree.root) if path == (model.tokenizer.token(end),)]
    assert len(ended) == 1
    assert ended[0].branches == ()
    assert (
        sum(1 for path, _ in walk(tree.root) if len(path) == 2)
        == (model.config.vocab_size - 1) * model.config.vocab_size
    )


def test_temperature_flattens_and_sharpens():
    model = made("gru", letters())
    cold, warm, hot = (
        generation_tree(model, TEXT, depth=1, least=0.0, temperature=t).root.branches[0].share for t in (0.5, 1, 2)
    )
    assert cold > warm > hot


def test_what_cannot_branch_is_refused():
    tokenizer = letters()
    model = made("qwen3", tokenizer)
    with pytest.raises(InputError, match="do not fit the context of 48"):
        generation_tree(model, "t" * 46, depth=4)
    assert generation_tree(model, "t" * 46, depth=3).root.branches
    with pytest.raises(ConfigError, match="depth=0"):
        generation_tree(model, TEXT, depth=0)
    with pytest.raises(ConfigError, match="give a smaller width"):
        generation_tree(model, TEXT, depth=3, width=200, least=0.0)
    with pytest.raises(ConfigError, match="a tree of continuations needs"):
        generation_tree(made("bert", tokenizer), TEXT)
