"""The native steps against the network itself, computed by torch in float64."""

import os
import runpy
import subprocess
import sys
import time
import warnings
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cutaway.errors import ConfigError, InputError
from cutaway.generation.backend import Rows
from cutaway.generation.native.backend import NativeBackend
from cutaway.generation.native.plan import supported
from cutaway.models import Decoder, DecoderConfig
from cutaway.models.config_parts import RotaryScaling
from cutaway.models.experts import Experts
from cutaway.models.formats.ggml import BY_NAME, Blocks
from cutaway.models.formats.quantise import quantise
from cutaway.models.quantised import QuantisedEmbedding, QuantisedExperts, QuantisedLinear

CONTRACTS = Path(__file__).parents[2] / "contracts" / "test_contracts_models.py"
SHAPES = {
    name: fields
    for name, (kind, fields) in runpy.run_path(str(CONTRACTS))["SHAPES"].items()
    if kind is DecoderConfig and "head" not in fields
}
PLAIN = {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2}
MORE = {
    "head of 8": {**PLAIN, "head_dim": 8},
    "head of 40": {**PLAIN, "head_dim": 40, "rotary_dim": 10},
    "head of 80": {**PLAIN, "head_dim": 80},
    "head of 128": {**PLAIN, "head_dim": 128},
    "head of 256": {**PLAIN, "head_dim": 256, "layers": 1},
    "seven heads on one": {"layers": 2, "width": 36, "heads": 7, "kv_heads": 1, "head_dim": 6},
    "erf": {**PLAIN, "activation": "gelu"},
    "relu": {**PLAIN, "activation": "relu", "gated": False, "mlp_bias": True},
    "gated with biases": {**PLAIN, "mlp_bias": True, "attention_bias": True, "output_bias": True},
    "no layers": {**PLAIN, "layers": 0},
    "no positions": {**PLAIN, "position": "none"},
    "parallel without norms": {**PLAIN, "parallel": True, "norm": "none"},
    "windows and caps": {**PLAIN, "windows": (100, 130), "score_cap": 4.0},
    "linear": {**PLAIN, "rotary_scaling": RotaryScaling("linear", factor=2.0)},
    "yarn": {**PLAIN, "rotary_scaling": RotaryScaling("yarn", factor=4.0, original_context=128)},
    "experts not gated": {**PLAIN, "experts": 3, "experts_used": 2, "gated": False, "expert_weights_sum_to_one": False},
}
VOCABULARY, CONTEXT = 61, 400


def made(fields: dict, dtype: torch.dtype = torch.float32, width: int = 0) -> Decoder:
    torch.manual_seed(1)
    network = Decoder(DecoderConfig(VOCABULARY, CONTEXT, **fields)).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            scale = 0.2 if "norm" in name or parameter.ndim == 1 else 1.2 / parameter.shape[-1] ** 0.5
            parameter.add_(torch.randn_like(parameter) * scale)
    return network.to(dtype)


def tokens(count: int, seed: int = 0) -> list[int]:
    return torch.randint(VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def native(network: nn.Module, cache: str = "float32", threads: int = 2, rounding: str = "sixteen") -> NativeBackend:
    backend = NativeBackend(network, cache=cache, threads=threads, rounding=rounding)
    backend.reserve(40)
    return backend


def pages(sequence: int, count: int = 7) -> list[int]:
    """Pages of a sequence, in an order of their own."""
    return [sequence * count + (3 * i + 1) % count for i in range(count)]


def through(backend: NativeBackend, ids: list[int], chunks: list[int], sequence: int = 0) -> Tensor:
    """(T, V) logits of a text given in chunks of these sizes, the last one over and over."""
    found, start = [], 0
    while start < len(ids):
        size = chunks.pop(0) if len(chunks) > 1 else chunks[0]
        new = ids[start : start + size]
        found.append(backend.step([Rows(sequence, new, start, pages(sequence), wanted=len(new))]).values.clone())
        start += size
    return torch.cat(found)


@torch.no_grad()
def expected(network: nn.Module, ids: list[int]) -> Tensor:
    return deepcopy(network).double()(torch.tensor([ids]))[0]


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("shape", [*SHAPES, *MORE])
def test_a_step_computes_what_the_network_does(shape: str) -> None:
    network = made((SHAPES | MORE)[shape])
    ids = tokens(150)
    found = through(native(network), ids, [150])
    assert error(found, expected(network, ids)) < 2e-5


@pytest.mark.parametrize("shape", ["llama", "gemma", "windows and caps", "experts", "neox", "head of 40"])
@pytest.mark.parametrize("cache", ["float32", "float16", "int8"])
def test_chunks_change_no_bit(shape: str, cache: str) -> None:
    network = made((SHAPES | MORE)[shape])
    ids = tokens(300)
    whole = through(native(network, cache), ids, [300])
    for chunks in ([1], [7, 1, 64, 33], [129, 3]):
        assert torch.equal(through(native(network, cache), ids, chunks), whole)
    assert torch.equal(through(native(network, cache, threads=1), ids, [50]), whole)
    assert torch.equal(through(native(network, cache, threads=3), ids, [1]), whole)


@pytest.mark.parametrize("shape", ["qwen3", "gemma", "experts", "seven heads on one"])
def test_company_changes_no_bit(shape: str) -> None:
    network = made((SHAPES | MORE)[shape])
    lengths = [260, 1, 131, 64, 17]
    texts = [tokens(length, seed) for seed, length in enumerate(lengths)]
    alone = [through(native(network), text, [len(text)]) for text in texts]
    backend = native(network)
    held = [0] * len(texts)
    found: list[list[Tensor]] = [[] for _ in texts]
    sizes = [90, 1, 131, 20, 3]
    while any(held[s] < len(text) for s, text in enumerate(texts)):
        batch = [
            Rows(
                s, text[held[s] : held[s] + sizes[s]], held[s], pages(s), wanted=len(text[held[s] : held[s] + sizes[s]])
            )
            for s, text in enumerate(texts)
            if held[s] < len(text)
        ]
        values, row = backend.step(batch).values, 0
        for item in batch:
            found[item.sequence].append(values[row : row + len(item.ids)].clone())
            row += len(item.ids)
            held[item.sequence] += len(item.ids)
    for each, wanted in zip(found, alone, strict=True):
        assert torch.equal(torch.cat(each), wanted)


def in_blocks(network: Decoder, kind: str) -> Decoder:
    """The network with every matrix that can be stored as a kind stored so."""

    def blocks(weight: Tensor) -> Blocks | None:
        if weight.shape[-1] % BY_NAME[kind].numbers:
            return None
        data = b"".join(quantise(weight, kind))
        return Blocks(
            kind, torch.frombuffer(bytearray(data), dtype=torch.uint8).view(*weight.shape[:-1], -1), torch.float32
        )

    for name, module in list(network.named_modules()):
        home, _, part = name.rpartition(".")
        if isinstance(module, Experts):
            for matrix in ("gate_proj", "up_proj", "down_proj"):
                held = blocks(getattr(module, matrix))
                if held is not None:
                    del module._parameters[matrix]
                    setattr(module, matrix, QuantisedExperts(held))
        elif isinstance(module, (nn.Linear, nn.Embedding)) and "router" not in name and name != "embed_positions":
            held = blocks(module.weight)
            if held is not None:
                linear = isinstance(module, nn.Linear)
                new = QuantisedLinear(held, module._parameters.get("bias")) if linear else QuantisedEmbedding(held)
                setattr(network.get_submodule(home), part, new)
    return network


KINDS = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q4_K", "Q6_K"]


@pytest.mark.parametrize("kind", KINDS)
def test_quantised_matrices(kind: str) -> None:
    fields = {"layers": 2, "width": 256, "heads": 4, "kv_heads": 2, "mlp_width": 512, "attention_bias": True}
    network = in_blocks(made(fields), kind)
    assert isinstance(network.blocks[0].self_attn.q_proj, QuantisedLinear)
    ids = tokens(70)
    with torch.no_grad():
        wanted = network(torch.tensor([ids]))[0].double()
    whole = through(native(network), ids, [70])
    assert error(whole, wanted) < 1e-3
    assert torch.equal(through(native(network), ids, [5, 1, 16]), whole)
    coarse = through(native(network, rounding="eight"), ids, [70])
    assert 1e-4 < error(coarse, wanted) < 0.08  # activations of 8 bits
    assert torch.equal(through(native(network, rounding="eight"), ids, [1]), coarse)


def test_quantised_experts() -> None:
    network = in_blocks(made({**PLAIN, "experts": 4, "experts_used": 2, "expert_width": 96}), "Q8_0")
    assert isinstance(network.get_submodule("layers.0.mlp.up_proj"), QuantisedExperts)
    ids = tokens(40)
    with torch.no_grad():
        wanted = network(torch.tensor([ids]))[0].double()
    whole = through(native(network), ids, [40])
    assert error(whole, wanted) < 1e-3
    assert torch.equal(through(native(network), ids, [1]), whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_matrices_are_used_as_they_are(dtype: torch.dtype) -> None:
    network = made(PLAIN, dtype)
    ids = tokens(50)
    found = through(native(network), ids, [50])
    assert error(found, expected(network, ids)) < 2e-5  # of the rounded weights: nothing else is rounded


def test_smaller_caches_lose_little() -> None:
    network = made({"layers": 3, "width": 128, "heads": 4, "kv_heads": 2})
    ids = tokens(300)
    wanted = expected(network, ids)
    errors = {cache: error(through(native(network, cache), ids, [300]), wanted) for cache in ("float16", "int8")}
    assert 1e-6 < errors["float16"] < 1e-3
    assert 1e-4 < errors["int8"] < 2e-2


def test_the_likeliest_token_and_the_sum() -> None:
    network = made(PLAIN)
    result = native(network).step([Rows(0, tokens(90), 0, pages(0), wanted=90)])
    assert torch.equal(result.best, result.values.argmax(-1))
    assert torch.allclose(result.log_sum.double(), result.values.double().logsumexp(-1), atol=1e-6, rtol=2e-7)


def test_only_wanted_rows_have_logits() -> None:
    network = made(PLAIN)
    texts = [tokens(30, 1), tokens(20, 2), tokens(10, 3)]
    batch = [Rows(s, text, 0, pages(s), wanted) for s, (text, wanted) in enumerate(zip(texts, (1, 0, 3), strict=True))]
    found = native(network).step(batch).values
    whole = [through(native(network), text, [len(text)]) for text in texts]
    assert torch.equal(found, torch.cat((whole[0][-1:], whole[2][-3:])))
    nothing = native(network).step([Rows(0, texts[0], 0, pages(0), wanted=0)])
    assert nothing.values.shape == (0, VOCABULARY)


def test_a_guess_is_forgotten_and_a_page_copied() -> None:
    network, ids = made(PLAIN), tokens(100)
    backend = native(network)
    wanted = through(backend, ids, [100])
    backend.step([Rows(0, tokens(9, 5), 70, pages(0))])  # others behind the 70th
    assert torch.equal(backend.step([Rows(0, ids[70:], 70, pages(0), wanted=30)]).values, wanted[70:])
    fork = [39, 38]
    backend.copy(pages(0)[0], 39)
    backend.copy(pages(0)[1], 38)
    backend.reserve(300)
    assert torch.equal(backend.step([Rows(1, ids[90:], 90, fork, wanted=10)]).values, wanted[90:])


def test_what_is_not_finite_is_seen_in_its_own_sequence() -> None:
    network = made(PLAIN)
    with torch.no_grad():
        network.embed_tokens.weight[7, 3] = float("nan")
    network.lm_head.weight = nn.Parameter(torch.randn(VOCABULARY, 64))
    backend = native(network)
    result = backend.step([Rows(4, [1, 2], 0, pages(0)), Rows(5, [3, 7], 0, pages(1)), Rows(6, [3], 0, pages(2))])
    assert result.log_sum.isfinite().tolist() == [True, False, True]
    assert result.values.isfinite().all(1).tolist() == [True, False, True]
    with torch.no_grad():
        network.embed_tokens.weight[7, 3] = 0.0
        network.lm_head.weight[60, :] = float("inf")
    assert not native(network).step([Rows(4, [1, 2], 0, pages(0))]).log_sum.isfinite()


def ended(child: int) -> int:
    """How a process ended; one that hangs is killed."""
    until = time.monotonic() + 60
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
        time.sleep(0.02)
    if done == (0, 0):
        os.kill(child, 9)
        done = os.waitpid(child, 0)
    return done[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    network, ids = made(PLAIN), tokens(40)
    backend = native(network, threads=3)
    wanted = through(backend, ids, [40])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that threads are lost is what is tried here
        child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(through(backend, ids, [40]), wanted) else 1)
    assert ended(child) == 0
    assert torch.equal(through(backend, ids, [40]), wanted)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_gives_back_one_of_two_sets_of_threads() -> None:
    ids = list(range(40))
    first, second = native(made(PLAIN), threads=2), native(made(PLAIN), threads=2)
    wanted = [through(one, ids, [40]) for one in (first, second)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that threads are lost is what is tried here
        child = os.fork()
    if child == 0:
        same = torch.equal(through(first, ids, [40]), wanted[0]) and torch.equal(through(second, ids, [40]), wanted[1])
        del first, second
        os._exit(0 if same else 1)
    assert ended(child) == 0


LIMITED = """
import resource, sys
import torch
from cutaway.generation.backend import Rows
from cutaway.generation.native.backend import NativeBackend
from cutaway.models import Decoder, DecoderConfig

backend = NativeBackend(Decoder(DecoderConfig(61, 64, layers=1, width=64, heads=2)).eval(), threads=3)
backend.reserve(1)
held = 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1])
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (held + (4 << 20), hard))  # less than a thread's stack
for _ in range(2):
    try:
        backend.step([Rows(0, [1, 2], 0, [0])])
    except RuntimeError as error:
        assert "no more threads" in str(error), error
    else:
        sys.exit("threads were had")
resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
assert torch.isfinite(backend.step([Rows(0, [1, 2], 0, [0])]).values).all()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit a process so")
def test_threads_that_are_not_to_be_had_are_said_and_asked_for_again() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


LEAVES = """
import threading
from cutaway.generation.backend import Rows
from cutaway.generation.native.backend import NativeBackend
from cutaway.models import Decoder, DecoderConfig

backend = NativeBackend(Decoder(DecoderConfig(61, 2048, layers=4, width=256, heads=4)).eval(), threads=2)
backend.reserve(32)
begun = threading.Event()

def steps():
    while True:
        backend.step([Rows(0, [1] * 1024, 0, list(range(32)))])
        begun.set()

threading.Thread(target=steps, daemon=True).start()
begun.wait()
"""


def test_the_interpreter_ends_while_a_thread_steps() -> None:
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", LEAVES], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_page_that_is_not_there_is_not_copied() -> None:
    backend = native(made(PLAIN))
    count = 1000
    backend.reserve(count)
    for source, target in ((0, count), (count, 0), (-1, 0)):
        with pytest.raises(RuntimeError, match="not reserved"):
            backend.copy(source, target)


def test_too_long_a_text_is_refused() -> None:
    network = made(PLAIN)
    with pytest.raises(InputError, match="401 tokens were given, but this model sees 400"):
        native(network).step([Rows(0, [1] * 401, 0, pages(0))])
    with pytest.raises(RuntimeError, match="fewer pages"):
        native(network).step([Rows(0, [1] * 65, 0, [0])])
    with pytest.raises(RuntimeError, match="not reserved"):
        native(network).step([Rows(0, [1], 0, [40])])


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({**PLAIN, "head": "embedding"}, "a head for embedding"),
        ({**PLAIN, "rotary_scaling": RotaryScaling("dynamic", factor=2.0, original_context=64)}, "dynamic positions"),
    ],
)
def test_what_cannot_be_computed_is_said(fields: dict, why: str) -> None:
    network = made(fields)
    assert why in (supported(network) or "")
    with pytest.raises(ConfigError, match=why):
        NativeBackend(network)
    assert "float64" in (supported(made(PLAIN, torch.float64)) or "")
