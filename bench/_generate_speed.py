"""Decoding one text, reading a prompt, and decoding sixteen texts together.

- `decode_vs_llamacpp`: tokens per second behind the first, 128 of them, over `llama-bench -n 128`.
- `decode_bandwidth_share`: that speed times the bytes of the matrices that each token reads (all of the file's tensors:
  its embedding is its output matrix), over the bandwidth measured just before.
- `prefill_vs_llamacpp`, `prefill_vs_transformers`: 512 tokens over the seconds to the first new token.
- `batch16_vs_llamacpp`, `batch16_vs_one`: sixteen prompts of 64 tokens, 128 new ones each, submitted at once; new
  tokens over the seconds of the whole job, prompts included. llama.cpp's is the same number of `llama-batched-bench`,
  and "one" is Cutaway's with one prompt.
"""

from statistics import median
from typing import Any

import _bench
import _generate_peers as peers
from _generate_engine import job, opened, text_ids, timed

from cutaway.models.formats.gguf import read_gguf

GOES_ON = "Once upon a time, in a small village by the sea, there lived a fisherman who"


def decode(quick: bool, runs: int) -> dict[str, Any]:
    file, new = peers.smollm2(), 32 if quick else 128
    _, engine = opened()
    read = sum(tensor.data.numel() for tensor in read_gguf(file).tensors.values())
    timed(engine, GOES_ON, new)  # warm, as llama-bench is
    theirs, ours, memory = [], [], []
    for _ in range(runs):
        theirs.append(peers.llamacpp_speed(file, new=new))
        memory.append(peers.bandwidth())
        ours.append(timed(engine, GOES_ON, new + 1).decode)
    speed = f"{median(ours):.0f} tokens/s"
    return {
        "decode_vs_llamacpp": _bench.figure(
            [our / their for our, their in zip(ours, theirs, strict=True)],
            ">= 1.75",
            cutaway=speed,
            peer=f"{median(theirs):.0f} tokens/s",
            peer_name=peers.NAME,
        ),
        "decode_bandwidth_share": _bench.figure(
            [our * read / most for our, most in zip(ours, memory, strict=True)],
            ">= 0.65",
            cutaway=f"{speed} × {read / 1e6:.1f} MB = {median(ours) * read / 1e9:.1f} GB/s",
            peer=f"{median(memory) / 1e9:.1f} GB/s",
            peer_name="reading memory",
        ),
    }


def prefill(quick: bool, runs: int) -> dict[str, Any]:
    file, length = peers.smollm2(), 128 if quick else 512
    model, engine = opened()
    ids = text_ids(model)[:length]
    timed(engine, ids, 1)
    llamacpp, transformers, ours = [], [], []
    for _ in range(runs):
        llamacpp.append(peers.llamacpp_speed(file, prompt=length))
        ours.append(length / timed(engine, ids, 1).seconds[0])
        transformers.append(length / peers.transformers("prefill", file, length)["seconds"])
    speed = f"{median(ours):.0f} tokens/s"

    def against(theirs: list[float], goal: str, name: str) -> dict[str, Any]:
        ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
        return _bench.figure(ratios, goal, cutaway=speed, peer=f"{median(theirs):.0f} tokens/s", peer_name=name)

    return {
        "prefill_vs_llamacpp": against(llamacpp, ">= 3", peers.NAME),
        "prefill_vs_transformers": against(transformers, ">= 1.1", "transformers, bfloat16, the best of five"),
    }


def batch(quick: bool, runs: int) -> dict[str, Any]:
    file, sequences, prompt, new = peers.smollm2(), 16, 64, 16 if quick else 128
    model, engine = opened()
    ids = text_ids(model)
    prompts = [ids[start : start + prompt] for start in range(0, sequences * prompt, prompt)]
    job(engine, prompts[:2], 8)
    theirs, ours, alone = [], [], []
    for _ in range(runs):
        theirs.append(peers.llamacpp_batch(file, sequences, prompt, new))
        ours.append(job(engine, prompts, new))
        alone.append(job(engine, prompts[:1], new))
    whole = [one["job"] for one in theirs]
    speed = f"{median(ours):.0f} tokens/s"
    return {
        "batch16_vs_llamacpp": _bench.figure(
            [our / their for our, their in zip(ours, whole, strict=True)],
            ">= 3",
            cutaway=speed,
            peer=f"{median(whole):.0f} tokens/s ({median(one['decode'] for one in theirs):.0f} while decoding)",
            peer_name=peers.NAME,
        ),
        "batch16_vs_one": _bench.figure(
            [our / one for our, one in zip(ours, alone, strict=True)],
            ">= 4",
            cutaway=f"{speed}; one alone: {median(alone):.0f}",
        ),
    }
