"""Special tokens around texts, against the tokenizers library that the files are written for."""

from typing import Any

import pytest
import tokenizers
from tokenizers import Tokenizer as Peer
from tokenizers import processors

from cutaway.errors import DamagedFile, InputError
from cutaway.tokenizers import Tokenizer
from cutaway.tokenizers.frame import frame

WORDS = ["[UNK]", "[CLS]", "[SEP]", "<s>", "</s>", *"abcdefghijklmnop"]
PROCESSORS: dict[str, Any] = {
    "none": None,
    "bert": processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1)),
    "roberta": processors.RobertaProcessing(("</s>", 4), ("<s>", 3)),
    "template": processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    ),
    "only an end": processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 4)]),
    "sequence": processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))]
    ),
}


def peer_with(processor: Any) -> Peer:
    peer = Peer(tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    peer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    peer.add_special_tokens(WORDS[:5])
    if processor is not None:
        peer.post_processor = processor
    return peer


@pytest.mark.parametrize("longest", [None, 11, 8, 7, 5])
@pytest.mark.parametrize("pair", [(None), ("d e"), ("d e f g h i j k")], ids=["one", "short", "long"])
@pytest.mark.parametrize("name", PROCESSORS)
def test_as_the_library_adds_them(name: str, pair: str | None, longest: int | None):
    peer = peer_with(PROCESSORS[name])
    ours = Tokenizer(peer.to_str())
    if longest is not None:
        peer.enable_truncation(longest)
    text = "a b c d e f"
    theirs = peer.encode(text) if pair is None else peer.encode(text, pair)
    ids, types = frame(ours, ours.encode(text), None if pair is None else ours.encode(pair), longest=longest)
    assert (ids, types) == (theirs.ids, theirs.type_ids)


def test_a_cut_takes_from_the_longer_text():
    ours = Tokenizer(peer_with(PROCESSORS["bert"]).to_str())
    assert frame(ours, [5] * 9, [6] * 3, longest=9) == ([1, 5, 5, 5, 2, 6, 6, 6, 2], [0, 0, 0, 0, 0, 1, 1, 1, 1])
    assert frame(ours, [5] * 9, [6] * 9, longest=8) == ([1, 5, 5, 2, 6, 6, 6, 2], [0, 0, 0, 0, 1, 1, 1, 1])
    with pytest.raises(InputError, match="no room"):
        frame(ours, [5], longest=2)


def test_a_post_processor_that_is_not_known_is_named():
    ours = Tokenizer(peer_with(PROCESSORS["bert"]).to_str())
    ours.around = [{"type": "Telepathy"}]
    with pytest.raises(DamagedFile, match="Telepathy"):
        frame(ours, [5])
    ours.around = [{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "?", "type_id": 0}}]}]
    with pytest.raises(DamagedFile, match="damaged"):
        frame(ours, [5])
    ours.around = [{"type": "BertProcessing", "cls": ["x", 1], "sep": ["x", 10**9]}]
    with pytest.raises(DamagedFile, match="vocabulary"):
        frame(ours, [5])
