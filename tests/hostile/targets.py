"""What is attacked: how a specimen is damaged, and how what came of it is opened and used.

A number stands for one input: it seeds which specimen is taken and what is done to it. Using means all that a
stranger's file can reach: opening, a forward pass over two tokens, text to ids and back.
"""

import contextlib
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from mutators import ODD, Raw, Rng, dump, mutate_bytes, mutate_gguf, mutate_json, mutate_lines, mutate_safetensors, pick

from cutaway import load_model
from cutaway.files import MANIFEST, seal
from cutaway.models import Encoder, Model, Seq2SeqConfig
from cutaway.models.adapters import load_adapter, merge_adapter
from cutaway.models.ngram import NGram
from cutaway.tokenizers import Tokenizer, TokenStore, load_tokenizer
from cutaway.training import loop, resume
from cutaway.training.checkpoint import read_config
from cutaway.training.metrics import read_metrics

TEXT = "the cat's text é 中文 \n\t 123 😀 <|endoftext|> " + "a" * 200 + " " * 100 + "!" * 50
Damage = Callable[[Rng, Path], None]
Use = Callable[[Path], None]


@dataclass(frozen=True)
class Target:
    """One kind of input.

    Attributes:
        specimens: the kinds of whole files that are damaged.
        damage: what is done to a copy of one, in its folder.
        use: opens the folder and uses what is in it.
        share: of all inputs, in parts.
        refused: whether nothing of it may ever open.
        writes: whether using writes into the folder.
    """

    specimens: tuple[str, ...]
    damage: Damage
    use: Use
    share: int = 10
    refused: bool = False
    writes: bool = False


def seed(target: str, number: int) -> Rng:
    """The draws of one input."""
    return random.Random(f"{target} {number}")


# use


class Enough(Exception):
    """A run that is continued is about to take a step."""


def speak(tokenizer: Tokenizer) -> None:
    """Text to ids and back."""
    ids = tokenizer.encode(TEXT)
    tokenizer.decode(ids)
    tokenizer.decode(ids, skip_special=True)
    tokenizer.encode(TEXT, allow_special=True)
    for id in ids[:20]:
        tokenizer.token(id)
    stream = tokenizer.stream()
    for id in ids[:20]:
        stream.add(id)
    stream.finish()


def use_model(source: Path) -> None:
    """Open, speak, compute."""
    model = load_model(source)
    speak(model.tokenizer)
    run_model(model)


def run_model(model: Model) -> None:
    """A forward pass over two tokens, and over a text where the vocabularies fit."""
    ids = [0, min(1, model.config.vocab_size - 1)]
    if isinstance(model.config, Seq2SeqConfig):
        heard = torch.zeros(1, model.config.mel_bins, 2 * min(model.config.source_context, 2000))
        model.logits(ids, source=heard if model.config.source == "audio" else ids)
        return
    model.logits(ids)
    if isinstance(model.network, Encoder):
        model.logits("the cat")


def use_folder(folder: Path) -> None:
    """A folder with a model in it."""
    use_model(folder)


def use_gguf(folder: Path) -> None:
    """A folder with a GGUF file in it."""
    use_model(folder / "m.gguf")


def use_adapter(folder: Path) -> None:
    """An adapter on its base; merged, and written back."""
    base = load_model(folder / "base")
    model = load_adapter(base, folder)
    run_model(model)
    run_model(merge_adapter(model))


def use_tokenizer(folder: Path) -> None:
    """A tokenizer alone: the replay of its work and bulk encoding too."""
    tokenizer = load_tokenizer(folder)
    speak(tokenizer)
    tokenizer.explain("the text é")
    assert tokenizer.kind in repr(tokenizer)
    if len(tokenizer.text) % 8 == 0:  # proving the fast encoder takes a while
        tokenizer.encode_bulk([TEXT, "the text"])


def use_run(folder: Path) -> None:
    """A run: the model in it, and going on with it."""
    use_model(folder)
    read_config(folder)
    read_metrics(folder)

    def begin(trainer: loop.Trainer, tick: Any) -> str:
        raise Enough

    rate = patch.object(loop, "matmul_rate", lambda dtype: 1e11)  # which only serves a figure
    with patch.object(loop.Trainer, "_loop", begin), rate, contextlib.suppress(Enough):
        resume(folder)


def use_store(folder: Path) -> None:
    """A token store, its checksums compared and not."""
    for verify in (False, True):
        store = TokenStore.open(folder, verify=verify)
        for split in store.splits.values():
            split.window(3, 20)
            split.documents_at([0, 5], 8)
            split.batch(0, seed=0, batch=2, context=8)


def use_ngram(folder: Path) -> None:
    """A counted model."""
    model = NGram.load(folder / "n.npz")
    model.logprobs(torch.arange(min(5, model.vocab_size)).numpy())


# damage


def of_file(name: str, mutate: Callable[[Rng, bytes], bytes]) -> Damage:
    """Mutate one file of a folder."""

    def damage(rng: Rng, folder: Path) -> None:
        path = folder / name
        path.write_bytes(mutate(rng, path.read_bytes()))

    return damage


def resealed(rng: Rng, folder: Path, share: float = 0.85) -> None:
    """Make the checksums right again, as an attacker would, or do without them."""
    if not (folder / MANIFEST).is_file() or rng.random() > share:
        return
    if rng.random() < 0.3 and not (folder / "store.json").exists():
        (folder / MANIFEST).unlink()
    else:
        seal(folder)


def damage_by_suffix(rng: Rng, path: Path) -> None:
    """Mutate a file as its name says what it is."""
    how = {".json": mutate_json, ".jsonl": mutate_lines, ".safetensors": mutate_safetensors}
    path.write_bytes(how.get(path.suffix, mutate_bytes)(rng, path.read_bytes()))


def damage_safetensors(rng: Rng, folder: Path) -> None:
    """The weights."""
    damage_by_suffix(rng, folder / "model.safetensors")
    resealed(rng, folder)


MANIFEST_NAMES = (
    "../../outside",
    "/etc/passwd",
    "/dev/zero",
    "/proc/self/mem",
    "a\0b",
    "x" * 5000,
    "",
    ".",
    "..",
    "\ud800",
)


def damage_own(rng: Rng, folder: Path) -> None:
    """Any file of a model folder in Cutaway's own format, its checksums among them."""
    name = rng.choice(("model.json", "model.json", "model.json", "tokenizer_config.json", MANIFEST))
    if name == MANIFEST and rng.random() < 0.5:
        entry = {"sha256": "0" * 64, "bytes": rng.choice((0, 5, 2**63))}
        (folder / MANIFEST).write_bytes(dump({"files": {rng.choice(MANIFEST_NAMES): rng.choice((entry, *ODD))}}))
        return
    damage_by_suffix(rng, folder / name)
    if name != MANIFEST:
        resealed(rng, folder)


INDEX_NAMES = (
    "../outside.safetensors", "/etc/passwd", "/dev/zero", "a/../../x", "model.safetensors\0", "", ".", "..",
    "a\\b", "C:\\x", "model.safetensors/", "x" * 300, "x" * 100_000, "tokenizer.json", "config.json", ".hidden", "~/x",
    "model.safetensors", "pytorch_model.bin", "nowhere.safetensors", Raw('"\\ud800"'),
)  # fmt: skip


def damage_index(rng: Rng, folder: Path) -> None:
    """An index of shards that names files that are not there, or not here."""
    size = int.from_bytes((folder / "model.safetensors").read_bytes()[:8], "little")
    names = [name for name in json.loads((folder / "model.safetensors").read_bytes()[8 : 8 + size]) if name[0] != "_"]
    homes: dict[str, Any] = dict.fromkeys(names, "model.safetensors")
    how = rng.randrange(4)
    if how == 0:
        homes = dict.fromkeys(names, rng.choice(INDEX_NAMES))
    elif how == 1:
        homes[rng.choice(names)] = rng.choice((*INDEX_NAMES, *ODD))
    elif how == 2:
        homes[rng.choice(("x", "", "\0", "x" * 70_000))] = rng.choice(INDEX_NAMES)
    index: Any = {"metadata": {"total_size": 1}, "weight_map": homes}
    path = folder / "model.safetensors.index.json"
    path.write_bytes(dump(index) if how < 3 else mutate_json(rng, dump(index)))


def damage_pooling(rng: Rng, folder: Path) -> None:
    """The files about pooling beside an encoder."""
    names = ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json")
    damage_by_suffix(rng, folder / rng.choice(names))


def damage_adapter(rng: Rng, folder: Path) -> None:
    """An adapter's config, or its tensors."""
    damage_by_suffix(rng, folder / rng.choice(("adapter_config.json", "adapter_model.safetensors")))
    resealed(rng, folder, share=0.95)


EXPLODING = [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 60
REGEXES = (
    "(a+)+$", "(a|a)*b", "(a*)*c", "(.*)*x", "(?:a|aa)+$", r"(\s+)+x", "(?<", "[", "a{99999}", "a{1,1000}{1,1000}",
    "(" * 500,
    "((((((((((a*)*)*)*)*)*)*)*)*)*)*b", "(?=a*)*", r"\1", "(?i)" + "ẞ" * 50, "", "^", "(?:)*", r"\p{X}", "x*",
    "(.)(?R)", "(?<n>a\\g<n>?b)",
    "a" * 100_000, "a.*b.*c.*d.*e.*f", "(a?){60}a{60}",
)  # fmt: skip
STEPS: tuple[Any, ...] = (
    {"type": "Sequence", "normalizers": EXPLODING},
    {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"Regex": ""}, "content": "x" * 1000}] * 5},
    {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "x" * 50_000}] * 50},
    {"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "ByteLevel"}] * 30},
    {"type": "Sequence", "decoders": EXPLODING},
    {"type": "Replace", "pattern": {"String": ""}, "content": "xx"},
    {"type": "Precompiled", "precompiled_charsmap": ""},
    {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    {"type": "Precompiled", "precompiled_charsmap": "/////wAAAAA="},
    {"type": "Precompiled", "precompiled_charsmap": "BAAAAP////9h"},
    {"type": "Precompiled", "precompiled_charsmap": "CAAAAAAB//8AAf//YQA="},
    {"type": "Strip", "content": " ", "start": 2**31, "stop": 2**60},
    {"type": "Strip", "content": "a", "start": 2**63, "stop": 2**64 - 1},
    {"type": "Truncate", "x": 1},
    {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
    {"type": "BPEDecoder", "suffix": ""},
    {"type": "Metaspace", "replacement": "aa", "prepend_scheme": "always"},
    {"type": "FixedLength", "length": 0},
    {"type": "FixedLength", "length": 2**62},
    {"type": "Punctuation", "behavior": "Contiguous"},
    {"type": "CharDelimiterSplit", "delimiter": ""},
    {"type": "UnicodeScripts"},
    {"type": "Whitespace"},
    {"type": "TemplateProcessing", "single": "$A:99999999999 $A", "pair": "$A $B", "special_tokens": {}},
    {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 500, "pair": []}
    | {"special_tokens": {}},
    {"type": "RobertaProcessing", "sep": ["x", 2**32 - 1], "cls": ["y", 2**31]},
    {"type": "exec", "code": "import os"},
)  # fmt: skip


def regex(pattern: str) -> dict[str, Any]:
    """A pre-tokenizer that cuts by a pattern."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


TOKENIZER_ODD = (*ODD, *STEPS, *map(regex, REGEXES), *REGEXES)


def damage_tokenizer(rng: Rng, folder: Path) -> None:
    """tokenizer.json and the files beside it."""
    others = [path.name for path in sorted(folder.iterdir()) if path.name != "tokenizer.json"]
    if others and rng.random() < 0.12:
        damage_by_suffix(rng, folder / rng.choice(others))
        return
    path = folder / "tokenizer.json"
    if rng.random() < 0.6:
        path.write_bytes(mutate_json(rng, path.read_bytes(), TOKENIZER_ODD))
        return
    spec: dict[str, Any] = json.loads(path.read_bytes())
    for _ in range(rng.choice((1, 1, 2))):
        TOKENIZER_CHANGES[rng.randrange(len(TOKENIZER_CHANGES))](rng, spec)
    path.write_bytes(dump(spec))


def _step(rng: Rng, spec: dict[str, Any]) -> None:
    spec[rng.choice(("normalizer", "pre_tokenizer", "post_processor", "decoder"))] = pick(rng, STEPS)


def _regex(rng: Rng, spec: dict[str, Any]) -> None:
    step = regex(rng.choice(REGEXES))
    section = rng.choice(("pre_tokenizer", "pre_tokenizer", "normalizer", "decoder"))
    spec[section] = (
        step if section == "pre_tokenizer" else {"type": "Replace", "content": "x"} | {"pattern": step["pattern"]}
    )


def _ids(rng: Rng, spec: dict[str, Any]) -> None:
    vocab, number = (
        spec["model"]["vocab"],
        rng.choice((0, 1, -1, 2**16, 2**24 - 1, 2**24, 2**31, 2**32 - 1, 2**32, 2**64)),
    )
    if isinstance(vocab, dict):
        vocab[rng.choice([*[*vocab][:50], "new"])] = number
    else:
        vocab[rng.randrange(len(vocab))][rng.randrange(2)] = rng.choice(
            (number, "the", "", float("nan"), 1e308, -1e308)
        )


def _added(rng: Rng, spec: dict[str, Any]) -> None:
    token = {
        "id": rng.choice((0, 5, 500, 2**24, 2**32 - 1, -1)),
        "content": rng.choice(("a", "", " ", "the", "x" * 5000, "\0")),
    }
    token |= {name: rng.random() < 0.4 for name in ("special", "normalized", "lstrip", "rstrip", "single_word")}
    spec["added_tokens"] = [*spec["added_tokens"], *[token] * rng.choice((1, 1, 2000))]


def _merges(rng: Rng, spec: dict[str, Any]) -> None:
    odd = (["zz", "qq"], ["a"], "a b c", "a b", ["a", ""], ["a", "b"], 3, ["a"] * 9)
    spec["model"]["merges"] = [*spec["model"].get("merges", []), pick(rng, odd)] * rng.choice((1, 1, 2))


def _model(rng: Rng, spec: dict[str, Any]) -> None:
    model = spec["model"]
    number = rng.choice((0, 1, 2**31, 2**64 - 1, -1, 0.5, 1e308))
    key = rng.choice(
        ("dropout", "unk_id", "max_input_chars_per_word", "fuse_unk", "byte_fallback", "unk_token", "type")
    )
    kinds = ("BPE", "Unigram", "WordPiece", "WordLevel", "X")
    model[key] = rng.choice(kinds) if key == "type" else rng.choice((number, "x", None, True))
    if rng.random() < 0.3:
        model[rng.choice(("continuing_subword_prefix", "end_of_word_suffix"))] = rng.choice(("", "a", "x" * 5000, "##"))


def _large(rng: Rng, spec: dict[str, Any]) -> None:
    vocab = spec["model"]["vocab"]
    if isinstance(vocab, dict):
        vocab.update({f"token{i}": 10_000 + i for i in range(3000)})
    else:
        vocab.extend([f"token{i}", -1.0] for i in range(3000))


TOKENIZER_CHANGES: tuple[Callable[[Rng, dict[str, Any]], None], ...] = (
    _step,
    _regex,
    _ids,
    _added,
    _merges,
    _model,
    _large,
)


def damage_run(rng: Rng, folder: Path) -> None:
    """A run's own files, or those of its newest checkpoint."""
    checkpoint = folder / "checkpoints" / "step-00000002"
    own = [folder / "config.json"] * 3 + [folder / name for name in ("metrics.jsonl", "baseline.json", "result.json")]
    inside = ("state.json", "state.json", "optimizer.safetensors", "optimizer.safetensors", "model.json", MANIFEST)
    path = rng.choice([*own, *(checkpoint / name for name in inside)])
    damage_by_suffix(rng, path)
    if path.parent == checkpoint and path.name != MANIFEST and rng.random() < 0.9:
        seal(checkpoint)


def damage_store(rng: Rng, folder: Path) -> None:
    """A token store's files."""
    damage_by_suffix(rng, rng.choice(sorted(folder.iterdir()) + [folder / "store.json"] * 12))
    if rng.random() < 0.9:
        seal(folder)


def plant_link(rng: Rng, folder: Path) -> None:
    """A file that is a link to the same file outside, to a device, or to another file of the system."""
    names = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST]
    names = [path for path in names if path.name in READ]
    path = rng.choice(names)
    outside = folder.parent / f"outside-{path.name}"
    path.rename(outside)
    target = rng.choice((outside, Path("..") / outside.name, Path("/etc/passwd"), Path("/dev/zero")))
    deeper = len(path.relative_to(folder).parts) - 1
    target = target if target.is_absolute() else Path(*[".."] * deeper) / target
    os.symlink(target, path)
    if (folder / MANIFEST).exists() and rng.random() < 0.5:
        (folder / MANIFEST).unlink()


READ = {
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "model.json", "modules.json",
    "sentence_bert_config.json", "m.gguf", "adapter_config.json", "adapter_model.safetensors",
}  # fmt: skip
TARGETS: dict[str, Target] = {
    "gguf": Target(("gguf",), of_file("m.gguf", mutate_gguf), use_gguf, share=25),
    "safetensors": Target(("published", "cutaway", "pooling"), damage_safetensors, use_folder, share=15),
    "config": Target(("published",), of_file("config.json", mutate_json), use_folder, share=25),
    "index": Target(("published",), damage_index, use_folder, share=4),
    "pooling": Target(("pooling",), damage_pooling, use_folder, share=4),
    "adapter": Target(("adapter",), damage_adapter, use_adapter, share=10),
    "tokenizer": Target(("tokenizer",), damage_tokenizer, use_tokenizer, share=25),
    "cutaway": Target(("cutaway",), damage_own, use_folder, share=8),
    "run": Target(("run",), damage_run, use_run, share=2, writes=True),
    "store": Target(("store",), damage_store, use_store, share=4),
    "ngram": Target(("ngram",), of_file("n.npz", mutate_bytes), use_ngram, share=2),
    "links": Target(("published", "cutaway", "pooling"), plant_link, use_folder, share=2, refused=True),
}
