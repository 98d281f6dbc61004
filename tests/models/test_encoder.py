"""The encoder: what holds for every one, whatever its features and its head."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from cutaway import load_model, record, replace, save_model
from cutaway.errors import ConfigError, InputError
from cutaway.interp import attention, logit_lens, predicted_bytes, surprisal
from cutaway.models import ActiveTap, EncoderConfig, Model, build_network
from cutaway.models.config import RotaryScaling
from cutaway.models.config_parts import HEADS
from cutaway.models.encoder import Encoder
from cutaway.models.heads import pool, probabilities
from cutaway.tokenizers import Tokenizer, train_tokenizer

BIASES = {"norm_bias": True, "attention_bias": True, "output_bias": True, "mlp_bias": True, "head_dense_bias": True}
BERT = {"norm_place": "sum", "position": "learned", "gated": False, "token_types": 2, **BIASES}
SHAPES: dict[str, dict[str, Any]] = {
    "modernbert": {"layers": 3, "width": 24, "heads": 3, "windows": (0, 3, 5), "rotary_base_local": 50.0},
    "bert": {"layers": 2, "width": 24, "heads": 2, **BERT},
    "roberta": {"layers": 2, "width": 24, "heads": 2, **BERT, "position_offset": 5, "tied": False},
    "electra": {"layers": 1, "width": 24, "heads": 4, **BERT, "embed_width": 10, "activation": "relu"},
    "first norm": {"layers": 2, "width": 15, "heads": 1, "head_dim": 6, "first_norm": True, "embed_norm": False},
    "tokens": {"layers": 2, "width": 24, "heads": 2, "head": "token_classification", "labels": ("a", "b", "c")},
    "texts": {
        "layers": 2,
        "width": 24,
        "heads": 2,
        "head": "sequence_classification",
        "labels": ("a", "b", "c"),
        "pooling": "mean",
    },
    "spans": {"layers": 1, "width": 24, "heads": 2, **BERT, "head": "span_extraction", "head_activation": "none"},
    "replaced": {"layers": 1, "width": 24, "heads": 2, **BERT, "head": "replaced_token", "head_norm": False},
    "embedding": {"layers": 2, "width": 24, "heads": 2, "head": "embedding", "pooling": "max", "normalize": True},
    "states": {"layers": 2, "width": 24, "heads": 2, **BERT, "head": "none", "pooler": True, "next_sentence": True},
}
TEXT = "the cat sat on the mat"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT * 3], "char", 300)


def made(tokenizer: Tokenizer, **fields: Any) -> Model:
    torch.manual_seed(0)
    network = build_network(EncoderConfig(tokenizer.vocab_size, 32, **fields)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return Model(network, tokenizer, "a test")


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Model:
    return made(tokenizer, **SHAPES[request.param])


def config_of(model: Model) -> EncoderConfig:
    assert isinstance(model.config, EncoderConfig)
    return model.config


def network_of(model: Model) -> Encoder:
    assert isinstance(model.network, Encoder)
    return model.network


def test_every_head_has_the_shape_it_states(model: Model):
    config, ids = config_of(model), torch.cat((model.ids(TEXT), model.ids(TEXT[::-1])))
    B, T = ids.shape
    sizes = {"B": B, "T": T, "C": config.width, "V": config.vocab_size, "L": len(config.labels), "2": 2}
    stated = HEADS[config.head].rpartition("(")[2].removesuffix(")")
    assert model.network(ids).shape == tuple(sizes[letter] for letter in stated.split(", "))


def test_all_heads_are_tried():
    assert {fields.get("head", "masked_lm") for fields in SHAPES.values()} == set(HEADS) - {"causal_lm"}


def test_recording_everything_changes_no_bit(model: Model):
    plain = model.logits(TEXT)
    recording = record(model, TEXT)
    assert list(recording) == model.network.tap_names()
    assert torch.equal(recording.logits, plain)
    if config_of(model).head != "none":
        assert torch.equal(recording[list(recording)[-1]].float(), plain)
    assert recording.receipt.bytes == sum(v.numel() * 4 for v in recording.values())
    assert predicted_bytes(model.config, list(recording), 1, len(recording.tokens)) == recording.receipt.bytes
    ids, seen = model.ids(TEXT), {}
    tapped = model.network(ids, tap=ActiveTap(model.network.tap_names(), sink=seen.__setitem__))
    assert torch.equal(tapped, model.network(ids))  # inside autograd too


def test_own_activations_put_back_change_nothing(model: Model):
    model.network.double()
    recording = record(model, TEXT)
    assert replace(model, TEXT, dict(recording)).receipt.difference < 1e-12


def test_every_activation_matters(model: Model):
    """Changing any place that is computed with changes what comes out; softmax alone ignores a constant."""
    for name in model.network.tap_names():
        generator = torch.Generator().manual_seed(1)
        changed = replace(model, TEXT, {name: lambda x, g=generator: x + torch.rand(x.shape, generator=g)})
        assert changed.receipt.difference > 1e-6, name


def test_the_parts_add_up(model: Model):
    config, network, recording = config_of(model), network_of(model), record(model, TEXT)
    for i, block in enumerate(network.blocks):
        part = {name: recording[f"layers.{i}.{name}"] for name in ("resid_pre", "attn_out", "resid_mid", "mlp_out")}
        middle, after = part["resid_pre"] + part["attn_out"], part["resid_mid"] + part["mlp_out"]
        if config.norm_place == "sum":
            assert torch.equal(recording[f"layers.{i}.attn_sum"], middle)
            assert torch.equal(recording[f"layers.{i}.mlp_sum"], after)
            middle = block.post_attention_layernorm(middle)
            after = block.post_feedforward_layernorm(after)
        assert torch.equal(recording[f"layers.{i}.resid_mid"], middle)
        assert torch.equal(recording[f"layers.{i}.resid_post"], after)
        if i:
            assert torch.equal(recording[f"layers.{i}.resid_pre"], recording[f"layers.{i - 1}.resid_post"])


def test_patterns_are_distributions_over_the_window(model: Model):
    ids = model.ids(TEXT)
    place = torch.arange(ids.shape[1])
    distance = (place[:, None] - place).abs()
    for i in range(model.config.layers):
        pattern = record(model, ids)[f"layers.{i}.attn.pattern"]
        torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))
        window = config_of(model).window(i) or len(place)
        assert pattern[..., distance >= window].abs().sum() == 0
        assert pattern[..., distance < window].min() > 0


@pytest.mark.parametrize("unpadded", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(model: Model, side: str, unpadded: bool):
    model.network.double()
    config, network = config_of(model), network_of(model)
    ids = model.ids(TEXT)[:, :9]
    if config.position_offset:
        ids = ids.masked_fill(ids == config.position_offset - 1, 0)
    fill, real = torch.full((1, 4), max(config.position_offset - 1, 0)), torch.ones_like(ids, dtype=torch.bool)
    order = (fill, ids) if side == "left" else (ids, fill)
    mask = torch.cat(
        [real & True if part is ids else torch.zeros_like(fill, dtype=torch.bool) for part in order], dim=1
    )
    alone = network(ids)
    padded = network(torch.cat(order, dim=1), mask=mask, unpadded=unpadded)
    if padded.shape[:2] == mask.shape:
        padded = padded[mask][None]
    torch.testing.assert_close(padded, alone, rtol=1e-10, atol=1e-12)


def test_a_batch_gives_what_its_rows_give(model: Model):
    model.network.double()
    ids = torch.cat((model.ids(TEXT), model.ids(TEXT[::-1])))
    together = record(model, ids)
    for row in range(2):
        for name, value in record(model, ids[row]).items():
            torch.testing.assert_close(together[name][row], value[0], rtol=1e-10, atol=1e-12)


def test_saved_and_loaded_is_the_same(model: Model, tmp_path: Path):
    save_model(model, tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert again.config == model.config
    assert torch.equal(again.logits(TEXT), model.logits(TEXT))


def test_names_that_do_not_exist_are_met_with_near_ones(model: Model):
    with pytest.raises(ConfigError, match="did you mean embed"):
        record(model, TEXT, "embedd")


def test_the_default_opens_in_other_tools(tokenizer: Tokenizer, tmp_path: Path):
    model = made(tokenizer, layers=2, width=24, heads=2)
    save_model(model, tmp_path / "m", "huggingface")
    again = load_model(tmp_path / "m")
    assert again.origin is not None
    assert again.origin.family == "modernbert"
    assert torch.equal(again.logits(TEXT), model.logits(TEXT))


def test_tokens_see_both_sides_and_token_types_count(tokenizer: Tokenizer):
    model = made(tokenizer, **SHAPES["bert"])
    ids, network = model.ids(TEXT), network_of(model)
    embedded = record(model, ids, "embed")["embed"].requires_grad_()
    out = network(ids, tap=ActiveTap(edits={"embed": lambda _: embedded}))
    (gradient,) = torch.autograd.grad(out[0, 9].sum(), embedded)
    assert gradient[0].abs().amin(dim=-1).min() > 0
    kinds = torch.zeros_like(ids)
    assert torch.equal(network(ids, token_types=kinds), network(ids))
    assert (network(ids, token_types=kinds + 1) - network(ids)).abs().max() > 1e-3


def test_positions_start_behind_the_padding(tokenizer: Tokenizer):
    """RoBERTa's rows: the padding's id has the row before the first, wherever it stands, masked or not."""
    network = network_of(made(tokenizer, **SHAPES["roberta"]))  # padding has id 4
    ids = torch.tensor([[4, 7, 8, 4, 9]])
    for mask in (None, ids != 4):
        rows = network._positions(ids, mask)
        assert isinstance(rows, torch.Tensor)
        assert rows.tolist() == [[4, 5, 6, 4, 7]]
    assert len(network.embed_positions.weight) == 5 + 32


def test_pooling():
    states = torch.tensor([[[1.0, -5.0], [3.0, -7.0], [float("nan"), 9.0]]])
    real = torch.tensor([[True, True, False]])
    assert pool(states, real, "mean").tolist() == [[2.0, -6.0]]
    assert pool(states, real, "max").tolist() == [[3.0, -5.0]]
    assert pool(states, real.flip(1), "cls").tolist() == [[3.0, -7.0]]
    assert pool(states, None, "cls").tolist() == [[1.0, -5.0]]


def test_what_it_cannot_do_says_so(tokenizer: Tokenizer):
    bert = made(tokenizer, **SHAPES["bert"])
    with pytest.raises(InputError, match="33 tokens were given, but this model sees 32"):
        bert.network(torch.zeros(1, 33, dtype=torch.int64))
    network, ids = network_of(bert), torch.zeros(1, 3, dtype=torch.int64)
    with pytest.raises(InputError, match=r"lie in 0 … 1, but \(1, 3\) with 2 … 2"):
        network(ids, token_types=ids + 2)
    with pytest.raises(InputError, match="knows no token types"):
        network_of(made(tokenizer, **SHAPES["modernbert"]))(ids, token_types=ids)
    with pytest.raises(InputError, match="no pooler"):
        network.pooled(torch.zeros(1, 3, 24))
    with pytest.raises(InputError, match="no output for the next sentence"):
        network.follows(torch.zeros(1, 3, 24))
    with pytest.raises(ConfigError, match="an encoder sees the token itself"):
        surprisal(bert, TEXT)
    with pytest.raises(ConfigError, match="predicts the next token"):
        bert.generate("the")


def test_attention_and_lens_read_encoders(tokenizer: Tokenizer):
    bert = made(tokenizer, **SHAPES["bert"])
    assert attention(bert, TEXT).patterns.shape == (2, 2, len(TEXT), len(TEXT))
    cells = logit_lens(bert, TEXT).cells
    likeliest = bert.logits(TEXT)[0].softmax(-1).max(-1)
    assert [cell.top[0][1] for cell in cells[-1]] == likeliest.values.tolist()
    with pytest.raises(ConfigError, match="head for masked_lm"):
        logit_lens(made(tokenizer, **SHAPES["texts"]), TEXT)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"width": 20, "heads": 3}, r"width \(20\) is not a multiple of heads \(3\)"),
        ({"width": 9, "heads": 3}, r"head_dim \(3\) must be even"),
        ({"windows": (1, 2)}, "2 were given for 6 layers"),
        ({"head": "token_classification"}, "needs the names of its labels"),
        ({"labels": ("a",)}, "labels are of"),
        ({"labelling": "several"}, "labelling is of whole texts with labels"),
        ({"next_sentence": True}, "set pooler too"),
        ({"embed_width": 8, "head_activation": "none"}, r"embed_width \(8\) channels, not width \(384\)"),
        ({"token_types": -1}, "token_types must not be negative"),
        ({"token_types": 10**9}, "up to 2,048"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"dropout": 1.0}, "dropout must be in"),
    ],
)
def test_numbers_that_do_not_fit_are_named(fields: dict[str, Any], named: str):
    with pytest.raises(ConfigError, match=named):
        EncoderConfig(20, **fields)


def test_probabilities_are_of_one_label_or_of_each():
    def config(labels: int, **fields: Any) -> EncoderConfig:
        names = tuple("abc"[:labels])
        return EncoderConfig(20, width=16, heads=2, head="sequence_classification", labels=names, **fields)

    logits = torch.tensor([[2.0, -1.0, 0.5]])
    assert torch.equal(probabilities(logits, config(3)), logits.softmax(-1))
    assert torch.equal(probabilities(logits, config(3, labelling="several")), logits.sigmoid())
    assert torch.equal(probabilities(logits[:, :1], config(1)), logits[:, :1].sigmoid())
    with pytest.raises(ConfigError, match="makes numbers"):
        probabilities(logits, config(3, labelling="number"))
    with pytest.raises(ConfigError, match="one vector for each text"):
        probabilities(logits, EncoderConfig(20, width=16, heads=2, head="embedding"))


@pytest.mark.parametrize("kind", ["dynamic", "yarn"])
def test_angles_do_not_depend_on_how_many_texts_are_read_together(
    kind: Literal["dynamic", "yarn"], tokenizer: Tokenizer
):
    """Some stretch with the length of a text, which is not that of all texts of a batch."""
    scaling = RotaryScaling(kind=kind, factor=4.0, original_context=8)
    model = made(tokenizer, layers=2, width=24, heads=2, head="none", rotary_scaling=scaling)
    network = network_of(model)
    texts = [torch.randint(0, tokenizer.vocab_size, (length,)) for length in (12, 20, 20, 7, 20)]
    ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    mask = torch.arange(20) < torch.tensor([len(text) for text in texts])[:, None]
    expected = network(ids, mask=mask).detach()  # where gradients may be wanted there is padding
    with torch.no_grad():
        found = network(ids, mask=mask)
    torch.testing.assert_close(found[mask], expected[mask], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], network(texts[1][None])[0].detach(), rtol=1e-4, atol=1e-5)
