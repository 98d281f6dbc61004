"""A recording that forms what is read of it: the numbers of a whole one, in little memory."""

import pytest
import torch
from every_kind import KINDS, SOURCE, TEXT, given, made

from cutaway.errors import InputError
from cutaway.interp import Recording, logit_flow, logit_lens, recall, record
from cutaway.interp.recall import Formed, size_of
from cutaway.interp.study import Study
from cutaway.models import Recurrent

SOME = ["llama", "gemma", "experts", "modernbert", "bert", "t5", "bart", "whisper", "gru"]


@pytest.mark.parametrize("kind", SOME)
def test_every_number_is_that_of_a_whole_recording(kind: str):
    model = made(kind)
    whole, formed = record(model, TEXT, **given(model)), recall(model, TEXT, **given(model))
    assert list(formed) == list(whole)
    assert torch.equal(formed.logits, whole.logits)
    for name in reversed(list(whole)):
        assert torch.equal(formed[name], whole[name]), name


def test_padded_texts_are_formed_with_their_masks():
    for kind in ("llama", "bert", "t5"):
        model, texts = made(kind), [TEXT, TEXT[:9]]
        source = [SOURCE, SOURCE[:5]] if given(model) else None
        whole, formed = record(model, texts, source=source), recall(model, texts, source=source)
        for name in whole:
            assert torch.equal(formed[name], whole[name]), (kind, name)


def test_memory_stays_within_the_room_and_names_are_looked_up_without_computing():
    model = made("llama")
    formed = recall(model, TEXT * 8, room=300_000)
    values = formed._values
    assert isinstance(values, Formed)
    streams, wrote = sum(map(size_of, values.kept.values())), values.bytes
    assert streams == wrote  # there is no room for what each part wrote
    assert "layers.2.attn.pattern" in formed
    assert "layers.9.attn.pattern" not in formed
    assert values.bytes == wrote  # nothing was formed
    biggest = 0
    for name in formed:
        biggest = max(biggest, size_of(formed[name]))
        assert values.bytes <= streams + 300_000 + 4 * biggest
    assert values.bytes > streams
    assert formed.receipt.bytes == streams + 300_000
    assert streams < recall(model, TEXT * 8, room=500_000)._values.bytes <= streams + 500_000  # pyright: ignore
    with pytest.raises(KeyError, match=r"unknown recorded activation 'layers\.9"):
        formed["layers.9.attn.pattern"]


def test_a_ledger_of_the_output_forms_no_layer_again(monkeypatch: pytest.MonkeyPatch):
    """The flow of a text of 975 tokens before a model of 30 layers took 32 s, all of it spent in a second run."""
    model = made("llama")
    formed, again = recall(model, TEXT * 8), []
    assert recall(model, TEXT * 8, room=1)["layers.1.attn.z"].equal(formed["layers.1.attn.z"])
    monkeypatch.setattr(Formed, "_form", lambda self, name: again.append(name))
    flow = logit_flow(formed)
    assert not again
    assert flow.total == logit_flow(record(model, TEXT * 8)).total


def test_the_output_of_a_long_text_is_run_once(monkeypatch: pytest.MonkeyPatch):
    model = made("llama")
    long = Study(model, TEXT, room=20_000)
    assert long.output is long.recording

    def refused(*_: object) -> Recording:
        raise InputError("no room")

    monkeypatch.setattr("cutaway.interp.study.recall", refused)
    longer = Study(model, TEXT, room=20_000)
    assert list(longer.output) == ["logits"]
    assert torch.equal(longer.output.logits, long.output.logits)


def test_a_pattern_too_large_for_memory_is_refused_with_a_sentence():
    with pytest.raises(InputError, match=r"the pattern of one layer of 22 tokens takes .* shorten the text"):
        recall(made("llama"), TEXT, limit=10_000)


def test_a_study_of_a_long_text_forms_what_its_analyses_read():
    model = made("llama", dtype=torch.float32)
    short, long = Study(model, TEXT), Study(model, TEXT, room=20_000)
    assert not isinstance(short.recording._values, Formed)
    assert isinstance(long.recording._values, Formed)
    asked = {"what": "layers.1.attn.pattern", "head": 2, "position": 9, "index": 4}
    a, b = short.ledger(**asked), long.ledger(**asked)
    assert [(t.name, t.value) for t in a.terms] == [(t.name, t.value) for t in b.terms]
    assert a.expand(a.terms[0].name).total == b.expand(b.terms[0].name).total
    lens = long.analyse("logit_lens", {"top": 1})
    assert lens.to_json()["cells"] == logit_lens(model, TEXT, top=1).to_json()["cells"]


def test_all_kinds_are_tried_or_alike():
    alike = {"gpt2", "decoder of texts", "encoder of texts", "encoder of vectors", "lstm"}
    assert set(SOME) | alike == set(KINDS)
    assert isinstance(made("gru").network, Recurrent)
