"""Published tokenizers that are a SentencePiece model and a little more: T5, XLM-RoBERTa, Llama, Gemma; and Marian."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cutaway.errors import ConfigError, DamagedFile, unknown
from cutaway.files import inside, write_atomic
from cutaway.tokenizers.beside import Beside
from cutaway.tokenizers.explain import TokenExplanation
from cutaway.tokenizers.sentencepiece import CONTROL, UNKNOWN
from cutaway.tokenizers.sentencepiece_file import UNIGRAM, SentencePieceModel, parse_sentencepiece, read_sentencepiece
from cutaway.tokenizers.spec import Spec, build_of_spec, template, without_special
from cutaway.tokenizers.tokenizer import Tokenizer
from cutaway.tokenizers.vocab_files import VOCAB_JSON, read_vocabulary, tokenizer

FILES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
SOURCE, TARGET = "source.spm", "target.spm"  # Marian's
T5 = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
XLM = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "mask_token": "<mask>",
}
LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
CLASSES = {"": {}, "T5": T5, "MT5": T5, "XLMRoberta": XLM, "Llama": LLAMA, "Gemma": GEMMA}


def from_sentencepiece(beside: Beside, file: str) -> Tokenizer:
    """The tokenizer of a folder with one SentencePiece model.

    Args:
        beside: what stands beside it.
        file: its name.

    Raises:
        ConfigError: a class, kind or setting that is not supported.
        DamagedFile: what is no SentencePiece model, or added tokens that do not fit it.
    """
    kind = beside.kind
    if kind not in CLASSES:
        raise ConfigError(unknown(f"tokenizer of a {file} in {beside.folder}", kind, filter(None, CLASSES)))
    where = str(beside.folder / file)
    model = read_sentencepiece(inside(beside.folder, file))
    special = dict(CLASSES[kind])
    if kind in ("T5", "MT5"):
        spec = model.spec(where)
        extra = beside.config.get("extra_ids", 100)
        if type(extra) is not int or not 0 <= extra <= 10_000:
            raise ConfigError(f"extra_ids in {beside.folder} must be a number in 0 … 10000, not {extra!r}")
        _append(spec, [f"<extra_id_{i}>" for i in reversed(range(extra))])
        beside.add(spec, special)
        spec["post_processor"] = template([], _named(spec, beside, special, "eos_token"))
    elif kind == "XLMRoberta":
        spec = _fairseq(model, where)
        beside.add(spec, special)
        begin, end = (_named(spec, beside, special, key) for key in ("cls_token", "sep_token"))
        spec["post_processor"] = template(begin, end, [*end, *end])
    else:
        spec = model.spec(where)
        if not special:  # a model alone: its own names
            ids = {"bos_token": model.bos, "eos_token": model.eos, "pad_token": model.pad, "unk_token": model.unk}
            special = {key: model.pieces[id] for key, id in ids.items() if 0 <= id < len(model.pieces)}
        beside.add(spec, special)
        begins, ends = beside.flag("add_bos_token", bool(kind)), beside.flag("add_eos_token", False)
        begin = _named(spec, beside, special, "bos_token") if begins else []
        end = _named(spec, beside, special, "eos_token") if ends else []
        spec["post_processor"] = template(begin, end, [*end, *begin]) if begin or end else None
    return tokenizer(spec, beside, special)


def _named(spec: Spec, beside: Beside, special: dict[str, str], key: str) -> list[tuple[str, int]]:
    name = beside.token(key, special.get(key))
    for token in spec["added_tokens"]:
        if token["content"] == name:
            return [(token["content"], token["id"])]
    raise DamagedFile(f"{beside.folder} names {name!r} as {key}, but the vocabulary has no such special token")


def _append(spec: Spec, names: Sequence[str]) -> None:
    """Special tokens after the pieces."""
    vocab = spec["model"]["vocab"]
    if not isinstance(vocab, list):
        raise ConfigError("the SentencePiece model of a T5 must be of kind unigram")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for name in names:
        spec["added_tokens"].append({"id": len(vocab), "content": name, "special": True} | flags)
        vocab.append([name, 0.0])


def _fairseq(model: SentencePieceModel, where: str) -> Spec:
    """The ids of fairseq: <s> <pad> </s> <unk> come first, then the pieces after the model's own three, then <mask>."""
    if model.kind != UNIGRAM or len(model.pieces) < 4:
        raise ConfigError(f"{where}: the SentencePiece model of an XLM-RoBERTa must be of kind unigram")
    changed = dataclasses.replace(
        model,
        pieces=["<s>", "<pad>", "</s>", "<unk>", *model.pieces[3:], "<mask>"],
        scores=[0.0] * 4 + model.scores[3:] + [0.0],
        types=[CONTROL, CONTROL, CONTROL, UNKNOWN, *model.types[3:], CONTROL],
        unk=3,
    )
    return changed.spec(where)


class Marian(Tokenizer):
    """Two SentencePiece models, one for source texts and one for target texts, over one vocabulary of ids.

    A text is cut by the SentencePiece model, and its pieces get the ids that vocab.json gives them, in whichever of the
    two models they are; those that it does not have are <unk>. At the beginning of a text may stand the name of the
    language to translate to, >>fr<<. `target` is the tokenizer of target texts, of which `save` writes the files too.

    Attributes:
        pieces: the tokenizer that cuts.
        files: the files that it was made from, by name.
        config: its tokenizer_config.json.
    """

    def __init__(
        self,
        pieces: Tokenizer,
        vocab: dict[str, int],
        *,
        files: Mapping[str, bytes],
        config: Mapping[str, Any],
        roles: dict[str, str],
        target: Tokenizer | None = None,
        where: str = VOCAB_JSON,
    ) -> None:
        """Make one of the two.

        Raises:
            DamagedFile: the vocabulary lacks a special token.
        """
        special = [name for name in ("</s>", "<unk>", "<pad>") if name in vocab]
        if len(special) < 3:
            raise DamagedFile(f"{where} lacks one of the tokens </s>, <unk> and <pad>")
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        spec = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": vocab[name], "content": name} | flags for name in special],
            "normalizer": None,
            "pre_tokenizer": None,
            "post_processor": template([], [("</s>", vocab["</s>"])]),
            "decoder": pieces.spec["decoder"],
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
        }
        super().__init__(json.dumps(spec, ensure_ascii=False), roles=roles, where=where)
        self.pieces, self.files, self.config, self.target = pieces, files, config, target
        cut = without_special(dict(pieces.spec, normalizer=None), set(pieces.special))
        self._cut = build_of_spec(cut, where)  # of a normalised text, so that it says where in that a piece stands
        self._specials = re.compile("(" + "|".join(map(re.escape, special)) + ")")
        parts = self.text + pieces.text + (target.fingerprint if target else "")
        self.fingerprint = hashlib.sha256(parts.encode()).hexdigest()

    @property
    def kind(self) -> str:
        """Which of the KINDS it is."""
        return self.pieces.kind

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """As `Tokenizer.encode`."""
        self.pieces.encode(text)  # for its errors
        language, text = _language(text)
        parts = self._specials.split(text) if allow_special else [text]
        texts, names = parts[::2], [*parts[1::2], ""]
        ids = [self._id(language)] if language else []
        for part, name in zip(texts, names, strict=True):
            ids += [*self._part(part), *([self._id(name)] if name else [])]
        return ids

    def _part(self, text: str) -> list[int]:
        """The ids of a text without special tokens. An unknown piece may be one of the other model's."""
        normaliser = self.pieces._plain.normalizer
        text = normaliser.normalize_str(text) if normaliser else text
        encoding = self._cut.encode(text, add_special_tokens=False)
        unknown = self.pieces.spec["model"].get("unk_id"), self.pieces.spec["model"].get("unk_token")
        return [
            self._id(text[start:end] if id == unknown[0] or token == unknown[1] else token)
            for id, token, (start, end) in zip(encoding.ids, encoding.tokens, encoding.offsets, strict=True)
        ]

    def _id(self, piece: str) -> int:
        return self._vocab.get(piece, self._vocab["<unk>"])

    def encode_bulk(self, texts: Sequence[str]) -> list[np.ndarray]:
        """As `Tokenizer.encode_bulk`."""
        return [np.array(self.encode(text), self.dtype) for text in texts]

    def explain(self, text: str) -> list[TokenExplanation]:
        """As `Tokenizer.explain`: what the SentencePiece model did, with the vocabulary's ids."""
        ids, (language, rest) = self.encode(text), _language(text)
        steps = self.pieces.explain(rest)
        if language:
            data, at = language.encode(), len(language)
            how = "the name of a language, which is a token at the beginning of a text"
            steps = [dataclasses.replace(s, span=(s.span[0] + at, s.span[1] + at), word=s.word + 1) for s in steps]
            steps = [TokenExplanation(ids[0], language, data, (0, at), 0, how), *steps]
        return [dataclasses.replace(step, id=id) for step, id in zip(steps, ids, strict=True)]

    def _save_vocabulary(self, folder: Path) -> None:
        for name, data in self.files.items():
            write_atomic(folder / name, data)

    def _saved_config(self) -> dict[str, Any]:
        return {**self.config, "tokenizer_class": "MarianTokenizer"}


def _language(text: str) -> tuple[str, str]:
    """The language's name before a text, and the text."""
    end = text.find("<<") + 2 if text.startswith(">>") else 0
    return (text[:end], text[end:]) if end > 1 else ("", text)


def marian(beside: Beside) -> Tokenizer:
    """The tokenizer of a Marian folder: source.spm, target.spm and vocab.json.

    Raises:
        ConfigError: vocabularies of its own for each language, or a setting that is not supported.
        DamagedFile: a file that is not what it should be.
    """
    folder = beside.folder
    if beside.kind not in ("Marian", ""):
        raise ConfigError(unknown(f"tokenizer of a {SOURCE} in {folder}", beside.kind, ["Marian"]))
    if beside.flag("separate_vocabs", False):
        raise ConfigError(f"{folder} has a vocabulary for each language (separate_vocabs), which is not supported")
    vocab = read_vocabulary(beside)
    files = {name: inside(folder, name).read_bytes() for name in (SOURCE, TARGET, VOCAB_JSON)}
    roles = beside.roles({"eos_token": "</s>", "pad_token": "<pad>"})
    made: Marian | None = None
    for name in (TARGET, SOURCE):
        spec = parse_sentencepiece(files[name], str(folder / name)).spec(str(folder / name))
        pieces = Tokenizer(json.dumps(spec, ensure_ascii=False), roles={}, where=str(folder / name))
        where = str(folder / VOCAB_JSON)
        made = Marian(pieces, vocab, files=files, config=beside.config, roles=roles, target=made, where=where)
    assert made is not None
    return made
