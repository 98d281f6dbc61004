"""Two texts in one input: every analysis reads their token types, as the network does."""

import pytest
import torch

from cutaway.interp import gradient_x_input, inputs_of, integrated_gradients, ledger, occlusion, pair_of, record
from cutaway.interp import replace as replaced
from cutaway.interp.inputs import Inputs
from cutaway.models import Model, build_network
from cutaway.models.config import EncoderConfig
from cutaway.tokenizers import train_tokenizer

FIRST, SECOND = "the cat sat", "a dog ran far away"


@pytest.fixture(scope="module")
def model() -> Model:
    tokenizer = train_tokenizer([FIRST, SECOND, "the dog and a cat"] * 3, "bpe", 280)
    bert = {"norm_place": "sum", "position": "learned", "gated": False, "norm_bias": True, "attention_bias": True}
    config = EncoderConfig(
        tokenizer.vocab_size, 64, 2, 32, 2, token_types=2, head="sequence_classification", labels=("no", "yes"), **bert
    )
    torch.default_generator.manual_seed(0)
    network = build_network(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Model(network.eval(), tokenizer)


@pytest.fixture(scope="module")
def pair(model: Model) -> Inputs:
    return pair_of(model, FIRST, SECOND)


@torch.no_grad()
def logits(model: Model, pair: Inputs) -> torch.Tensor:
    return model.network(pair.ids, token_types=pair.token_types)


def test_a_recording_is_of_what_the_network_computes(model, pair):
    assert pair.token_types is not None
    assert pair.token_types.unique().tolist() == [0, 1]
    assert torch.equal(record(model, pair).logits, logits(model, pair))
    assert not torch.allclose(record(model, pair.ids).logits, logits(model, pair))  # the types matter
    edited = replaced(model, pair, {"layers.0.mlp_out": lambda x: x})
    assert edited.receipt.difference == 0


@pytest.mark.parametrize("method", [occlusion, gradient_x_input, integrated_gradients])
def test_an_attribution_explains_the_logit_that_is_predicted(model, pair, method):
    for number, label in enumerate(("no", "yes")):
        found = method(model, pair, token=label, grain="word")
        assert found.value == pytest.approx(float(logits(model, pair)[0, number]), abs=1e-5)
        words = [token.strip() for token in found.tokens]
        assert words == [*FIRST.split(), "<|endoftext|>", *SECOND.split()]


def test_without_a_token_the_others_keep_their_types(model, pair):
    found = occlusion(model, pair, token="yes", replace="delete")
    whole = float(logits(model, pair)[0, 1])
    for place, score in enumerate(found.scores):
        if int(pair.ids[0, place]) == model.tokenizer.end_of_text:  # which stands between the texts, and stays
            assert score == 0
            continue
        kept = [i for i in range(pair.ids.shape[1]) if i != place]
        left = Inputs(pair.ids[:, kept], token_types=pair.token_types[:, kept])
        assert score == pytest.approx(whole - float(logits(model, left)[0, 1]), abs=1e-5)


def test_the_ledger_adds_up_and_names_the_type(model, pair):
    recording = record(model, pair)
    assert ledger(recording, token="yes").error < 1e-5
    last = pair.ids.shape[1] - 1
    for position, kind in ((0, "0"), (last, "1")):
        opened = ledger(recording, what="embed", position=position, index=3)
        assert opened.error < 1e-5
        (term,) = [term for term in opened.terms if term.name == "type"]
        assert term.label == kind


def test_rows_and_copies_carry_the_types(model, pair):
    assert torch.equal(pair.repeat(3).token_types, pair.token_types.expand(3, -1))
    assert torch.equal(pair.repeat(3).rows(1, 2).token_types, pair.token_types)
    assert torch.equal(pair.repeat(3).picked(torch.tensor([2])).token_types, pair.token_types)
    assert inputs_of(model, pair) is pair
