"""Every head at a glance: the same numbers as analyses that hold all patterns."""

import pytest
import torch
from every_kind import TEXT, given, made
from torch.nn.functional import adaptive_max_pool2d

from cutaway.errors import ConfigError, InputError
from cutaway.interp import (
    attention,
    attention_overview,
    check,
    head_detectors,
    head_scores,
    record,
    rollout,
    value_weighted,
)
from cutaway.interp.attention.overview import AttentionOverview

PARTS = [("llama", None), ("gemma", None), ("bert", None), ("t5", "decoder"), ("t5", "encoder"), ("bart", "cross")]


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_heads_are_those_of_attention(kind: str, part: str | None):
    model = made(kind, dtype=torch.float32)
    read = {"part": part, **given(model)}
    found, whole = attention_overview(model, TEXT, side=7, **read), attention(model, TEXT, **read)
    weighted = value_weighted(model, TEXT, **read)
    assert (found.tokens, found.keys, found.causal) == (whole.tokens, whole.keys, whole.causal)
    assert found.shown == whole.sharpest()
    L, H, T, S = whole.patterns.shape
    for layer in range(L):
        for head in range(H):
            assert torch.equal(found.head(layer, head), whole.patterns[layer, head])
            shares = found.head(layer, head, "output")
            torch.testing.assert_close(shares, weighted.patterns[layer, head], rtol=1e-5, atol=1e-7)
    exact = 255 * adaptive_max_pool2d(whole.patterns, (min(7, T), min(7, S))).sqrt()
    assert found.small.shape == (L, H, min(7, T), min(7, S))
    assert (found.small.float() - exact).abs().max() <= 0.5


def test_scores_are_before_the_softmax_and_unseen_keys_have_none():
    model = made("llama", dtype=torch.float32)
    found = attention_overview(model, TEXT)
    scores, pattern = found.head(2, 1, "score"), found.head(2, 1)
    assert torch.equal(scores.isnan(), torch.ones_like(scores, dtype=torch.bool).triu(1))
    torch.testing.assert_close(scores.nan_to_num(-torch.inf).softmax(-1), pattern)


def test_kinds_are_the_largest_of_the_head_scores():
    model = made("llama", dtype=torch.float32)
    found = attention_overview(model, TEXT)
    recording = record(model, TEXT, "layers.*.attn.pattern")
    scores = head_scores(list(recording.values()), recording.ids)
    assert list(found.scores) == list(scores) == ["previous", "first", "itself", "duplicate", "induction"]
    for name, score in scores.items():
        torch.testing.assert_close(found.scores[name], score)
        assert 0 < found.uniform[name] < 1
    for layer, row in enumerate(found.kinds()):
        for head, (kind, share) in enumerate(row):
            best = max(float(score[layer, head]) for score in scores.values())
            assert share == pytest.approx(best, abs=1e-6) == float(scores[kind][layer, head])
    panel = head_detectors(model, TEXT, causal=False)
    torch.testing.assert_close(panel["itself"].values, scores["itself"])


def test_a_text_without_repetitions_has_no_duplicates():
    found = attention_overview(made("llama"), "the ca")
    assert found.scores["duplicate"].isnan().all()
    assert "duplicate" not in found.uniform
    assert {kind for row in found.kinds() for kind, _ in row} <= {"previous", "first", "itself"}


def test_a_recording_is_read_as_it_is_and_gives_the_same():
    model = made("llama", dtype=torch.float32)
    read, ran = attention_overview(record(model, TEXT)), attention_overview(model, TEXT)
    assert torch.equal(read.small, ran.small)
    assert torch.equal(read.head(1, 3), ran.head(1, 3))


def test_sound_has_no_tokens_to_compare():
    model = made("whisper")
    found = attention_overview(model, TEXT, part="cross", **given(model))
    assert set(found.scores) == {"same place", "first", "last", "duplicate", "induction"}
    assert found.scores["duplicate"].isnan().all()
    assert not found.scores["same place"].isnan().any()


def test_what_is_not_there_is_met_with_a_sentence():
    found = attention_overview(made("llama"), TEXT)
    with pytest.raises(InputError, match="layer 3 head 0 is not there: the decoder has 3 layers × 4 heads"):
        found.head(3, 0)
    with pytest.raises(ConfigError, match="unknown way to show a head 'weigth'; did you mean weight"):
        found.head(0, 0, "weigth")
    with pytest.raises(ConfigError, match="side of at least 1"):
        attention_overview(made("llama"), TEXT, side=0)
    with pytest.raises(ConfigError, match="a recurrent model has no attention"):
        attention_overview(made("gru"), TEXT)


def test_it_can_be_tried_out_and_told():
    model = made("llama", dtype=torch.float32)
    told: list[tuple[float, float | None]] = []
    found = attention_overview(model, TEXT, progress=lambda report: told.append((report.done, report.total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    panel = check(found, most=4)
    assert panel["claims"].column("what") == check(attention(model, TEXT), most=4)["claims"].column("what")


def test_its_page_holds_the_last_tokens_of_a_long_text(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cutaway.interp.pictures.page.ATTENTION_BYTES", 4000)
    found: AttentionOverview = attention_overview(made("llama", dtype=torch.float32), TEXT)
    held = found.page_data()
    assert (held["picture"], held["first"]) == ("attention", 5)  # 17 rows of 12 heads, two bytes each, have room
    assert held["tokens"] == found.tokens[5:]
    for layer in range(held["patterns"].shape[0]):
        exact = torch.stack([found.head(layer, head)[5:, 5:] for head in range(held["patterns"].shape[1])])
        torch.testing.assert_close(held["patterns"][layer], exact, rtol=0, atol=0.5 / 65536)
    assert held["habits"] == found.kinds()


def test_rollout_reads_layer_by_layer():
    model = made("llama", dtype=torch.float32)
    patterns = attention(model, TEXT).patterns.double().mean(1)
    mixed = torch.eye(len(TEXT), dtype=torch.float64)
    for pattern in patterns:
        mixed = (0.5 * torch.eye(len(TEXT)) + 0.5 * pattern / pattern.sum(-1, keepdim=True)) @ mixed
    torch.testing.assert_close(rollout(model, TEXT).values, mixed)
