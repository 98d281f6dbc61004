"""Attribution graphs: every edge against the network itself, run with its attention and norms held."""

import copy
from typing import Any

import pytest
import torch
from by_hand import attention_only
from torch import nn

from cutaway.errors import ConfigError, InputError
from cutaway.interp import record
from cutaway.interp.features import AttributionGraph, SparseAutoencoder, Transcoder, attribution_graph
from cutaway.interp.features.prune import influence, pruned
from cutaway.models import ActiveTap, Decoder, DecoderConfig, Model
from cutaway.models.layers import RMSNorm
from cutaway.tokenizers import Tokenizer

TEXT = "the cat sat"
PLAIN: dict[str, Any] = {"layers": 3, "width": 16, "heads": 4, "kv_heads": 2}
GPT2: dict[str, Any] = {
    "layers": 2, "width": 12, "heads": 2, "norm": "layernorm", "position": "learned", "activation": "gelu_tanh",
    "gated": False, "qk_norm": False, "attention_bias": True, "output_bias": True, "mlp_bias": True,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "gated": PLAIN,
    "ungated": GPT2,
    "norms on both sides": {
        **PLAIN,
        "norm_place": "both",
        "norm_plus_one": True,
        "score_cap": 3.0,
        "windows": (4, 0, 5),
    },
    "norms after": {**PLAIN, "norm_place": "after", "qk_norm_joint": True},
    "parallel": {**GPT2, "parallel": True, "position": "rotary", "rotary_dim": 2},
    "experts": {**PLAIN, "experts": 4, "experts_used": 2, "expert_width": 20},
}


def made(shape: str, tokenizer: Tokenizer, kind: str = "topk") -> tuple[Model, list[Transcoder]]:
    """A random float64 decoder with a random transcoder for each of its MLPs."""
    torch.manual_seed(0)
    network: Any = Decoder(DecoderConfig(tokenizer.vocab_size, context=32, **SHAPES[shape]))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model = Model(network.double().eval(), tokenizer, "a test")
    transcoders = []
    for i in range(network.config.layers):
        width = network.config.width
        transcoder = Transcoder(width, width, 40, kind, 5 if kind == "topk" else 0, f"layers.{i}.mlp")
        transcoder.reset_parameters(torch.Generator().manual_seed(i))
        with torch.no_grad():
            transcoder.encoder_bias.normal_(0.0, 0.1)
            transcoder.bias.normal_(0.0, 0.1)
            if kind == "jumprelu":
                transcoder.threshold.fill_(0.8)
        transcoders.append(transcoder.double())
    return model, transcoders


class Kept(nn.Module):
    """A norm whose scale is that of its input in another run."""

    def __init__(self, norm: Any, at: torch.Tensor) -> None:
        super().__init__()
        self.norm, self.slope = norm, norm
        layernorm = isinstance(norm, nn.LayerNorm)
        spread = at.var(-1, correction=0, keepdim=True) if layernorm else at.square().mean(-1, keepdim=True)
        self.size, self.centred = (spread + norm.eps).sqrt(), layernorm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.centred:
            return (x - x.mean(-1, keepdim=True)) / self.size * self.norm.weight + self.norm.bias
        assert isinstance(self.norm, RMSNorm)
        return x / self.size * self.norm.scale


def held(model: Model) -> tuple[Model, dict[str, Any]]:
    """The model's own network with every norm and every pattern held, and its MLPs' outputs as they were."""
    network: Any = copy.deepcopy(model.network)
    inputs: dict[str, torch.Tensor] = {}

    def keeping(name: str) -> Any:
        return lambda module, given: inputs.__setitem__(name, given[0].detach())

    hooks = [
        module.register_forward_pre_hook(keeping(name))
        for name, module in network.named_modules()
        if isinstance(module, RMSNorm | nn.LayerNorm) and "attn" not in name
    ]
    with torch.no_grad():
        network(model.ids(TEXT))
    for hook in hooks:
        hook.remove()
    for name, at in inputs.items():
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, Kept(network.get_submodule(name), at))
    plain = record(model, TEXT)
    fixed = {n: (lambda x, v=plain[n]: v) for n in plain if n.endswith(("attn.pattern", "mlp_out"))}
    return Model(network, model.tokenizer, "held"), fixed


def observed(
    model: Any, edits: dict[str, Any], transcoders: list[Transcoder]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Pre-activations of all features, (T, W) per layer, and demeaned logits after the last token."""
    seen: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        output = model.network(model.ids(TEXT), tap=ActiveTap(model.network.tap_names(), edits, seen.__setitem__))
    pre = []
    for i, transcoder in enumerate(transcoders):
        block = model.network.blocks[i]
        stream = seen[f"layers.{i}.{'resid_pre' if model.config.parallel else 'resid_mid'}"]
        norm = block.post_attention_layernorm
        if model.config.norm_place == "both":
            norm = block.pre_feedforward_layernorm
        elif model.config.norm_place == "after":
            norm = lambda x: x  # noqa: E731
        elif model.config.parallel:
            norm = block.post_attention_layernorm
        pre.append(transcoder.pre(norm(stream))[0].detach())
    del output
    logits = seen["final_norm"][0, -1] @ model.network.lm_head.weight.T
    return pre, (logits - logits.mean()).detach()


@pytest.mark.parametrize("shape", SHAPES)
def test_doubling_a_feature_moves_everything_by_its_edges(shape: str, tokenizer: Tokenizer):
    model, transcoders = made(shape, tokenizer)
    found = attribution_graph(model, TEXT, transcoders, most=10_000)
    assert found.receipt.gap is not None
    assert found.receipt.gap < 1e-9
    frozen, fixed = held(model)
    before, logits = observed(frozen, fixed, transcoders)
    plain = model.logits(TEXT)[0, -1]
    if not getattr(model.config, "logit_cap", 0):
        assert torch.allclose((plain - plain.mean()).double(), logits, atol=1e-5)  # held as they were, all is as it was
    count, worst = len(found.features), 0.0
    first = next(i for i, name in enumerate(found.names) if name.startswith("logit"))
    rows = {node: row for row, node in enumerate(found.rows.tolist())}
    followed = [node for node in rows if node < count]
    assert len(followed) > count / 3
    told = model.logits(TEXT)[0, -1].argsort(descending=True)
    for i in range(0, count, 3):
        layer, position, number = found.features[i].tolist()
        write = transcoders[layer].decoder[number].detach() * found.values[i]
        name = f"layers.{layer}.mlp_out"

        def doubled(x: torch.Tensor, name: str = name, position: int = position, write: torch.Tensor = write):
            x = fixed[name](x).clone()
            x[0, position] += write
            return x

        after, moved = observed(frozen, {**fixed, name: doubled}, transcoders)
        for t in followed:
            at, place, feature = found.features[t].tolist()
            change = after[at][place, feature] - before[at][place, feature]
            worst = max(worst, abs(float(change - found.weights[rows[t], i])))
        for row in range(first, len(found.names)):
            token = int(told[row - first])
            worst = max(worst, abs(float(moved[token] - logits[token] - found.weights[rows[row], i])))
    assert worst < 1e-9


def test_rows_sum_to_what_they_are_of(tokenizer: Tokenizer):
    model, transcoders = made("ungated", tokenizer, "jumprelu")
    found = attribution_graph(model, TEXT, transcoders[:1], token="a", minus="t")
    logits = model.logits(TEXT)[0, -1]
    a, t = (model.tokenizer.id(letter) for letter in "at")
    assert found.weights[0].sum() == pytest.approx(float(logits[a] - logits[t]), abs=1e-5)
    assert found.names[-1] == "logit.0"
    assert {int(layer) for layer in found.features[:, 0]} == {0}
    # the other MLP stayed as it was: all of it is its error node
    assert found.weights[0, found.names.index("layers.1.error@10")] != 0


@pytest.mark.parametrize("layers", [0, 2])
def test_decoders_without_norms_and_mlps_have_graphs(tokenizer: Tokenizer, layers: int):
    model = attention_only(tokenizer, layers, 16, heads=2)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    found = attribution_graph(model, TEXT, token="a")
    assert found.receipt.gap is not None
    assert found.receipt.gap < 1e-9
    logits = model.network(model.ids(TEXT))[0, -1].detach()
    wanted = float(logits[model.tokenizer.id("a")] - logits.mean())
    embeds = [i for i, name in enumerate(found.names) if name.startswith("embed")]
    assert float(found.weights[0, embeds].sum()) == pytest.approx(wanted, abs=1e-9)
    with pytest.raises(ConfigError, match="no MLPs for which"):
        attribution_graph(model, TEXT, [Transcoder(16, 16, 20, "l1", name="layers.0.mlp")])


def test_the_graph_is_pruned_and_draws(tokenizer: Tokenizer):
    model, transcoders = made("gated", tokenizer)
    found = attribution_graph(model, TEXT, transcoders)
    graph = found["graph"]
    names = {node.name for node in graph.nodes}
    assert 3 < len(names) < len(found.names)
    assert all(edge.source in names and edge.target in names for edge in graph.edges)
    depths = {node.name: node.depth for node in graph.nodes}
    assert all(depths[edge.source] < depths[edge.target] for edge in graph.edges)
    assert 0 < found.figures["through features"] < 1
    assert len(found["tested"].rows) == 10
    fewer = attribution_graph(model, TEXT, transcoders, most=5)
    assert fewer.figures["followed"] == 5
    assert any("were not followed further back" in note for note in fewer.notes)


def exact(tokenizer: Tokenizer) -> tuple[Model, list[Transcoder]]:
    """A network that is nearly what a graph of it says: relu MLPs are exactly their transcoders, attention is even
    whatever is written, and norms divide by a large channel that nobody writes or reads.
    """
    torch.manual_seed(0)
    shape = {
        "layers": 3,
        "width": 16,
        "heads": 4,
        "gated": False,
        "activation": "relu",
        "qk_norm": False,
        "tied": False,
    }
    network: Any = Decoder(DecoderConfig(tokenizer.vocab_size, context=32, **shape)).double().eval()
    transcoders = []
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(0.0, 1.0) if "norm" not in name else parameter[0].zero_()
        network.embed_tokens.weight[:, 0] = 1000.0
        for i, block in enumerate(network.blocks):
            mlp = block.mlp
            block.self_attn.q_proj.weight.zero_()
            block.self_attn.o_proj.weight[0] = mlp.down_proj.weight[0] = 0.0
            mlp.down_proj.weight /= mlp.down_proj.weight.norm(dim=0, keepdim=True)
            transcoder = Transcoder(16, 16, network.config.mlp_width, "l1", 0, f"layers.{i}.mlp").double()
            transcoder.encoder.copy_(mlp.up_proj.weight)
            transcoder.decoder.copy_(mlp.down_proj.weight.T)
            transcoders.append(transcoder)
    return Model(network, tokenizer, "a test"), transcoders


def test_exact_transcoders_leave_no_errors_and_predict_edits(tokenizer: Tokenizer):
    model, transcoders = exact(tokenizer)
    found = attribution_graph(model, TEXT, transcoders, most=10_000, tested=20)
    assert found.figures["through features"] == pytest.approx(1.0, abs=1e-9)
    errors = [i for i, name in enumerate(found.names) if "error" in name]
    assert found.weights[:, errors].abs().max() < 1e-9
    assert found.figures["correlation"] > 0.999
    predicted, actual = (found["tested"].column(name) for name in ("predicted", "actual"))
    assert predicted == pytest.approx(actual, rel=0.05)


def test_total_effects_follow_every_path():
    from cutaway.interp.features.trace import Traced

    # 0 -> 1 -> logit and 0 -> logit; activations 2 and 4
    logit = torch.tensor([0.5, 3.0, 0.0, 0.0], dtype=torch.float64)
    weights = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)  # of feature 1
    run = object.__new__(Traced)
    object.__setattr__(run, "features", torch.zeros(2, 3, dtype=torch.int64))
    object.__setattr__(run, "active", torch.tensor([2.0, 4.0], dtype=torch.float64))
    # without 0, feature 1 reads 1 of 4 less, and so writes a quarter of 3 less
    assert run.total_effects(logit[None], weights, torch.tensor([1])).tolist() == [[0.5 + 3.0 / 4, 3.0, 0.0, 0.0]]


def test_influence_and_pruning_on_a_chain():
    # 0 -> 1 -> 3 with nine tenths, 2 -> 3 with one
    weights, rows = torch.zeros(2, 4), torch.tensor([3, 1])
    weights[1, 0], weights[0, 1], weights[0, 2] = -5.0, 9.0, 1.0
    importance = torch.tensor([0.0, 0, 0, 1.0], dtype=torch.float64)
    assert influence(weights, rows, importance).tolist() == pytest.approx([0.9, 0.9, 0.1, 0.0])
    kinds = ["embed", "feature", "embed", "logit"]
    assert pruned(weights, rows, importance, kinds, 0.9, 0.98) == ([0, 1, 3], [[3, 1], [1, 0]])
    assert pruned(weights, rows, importance, kinds, 1.0, 1.0) == ([0, 1, 2, 3], [[3, 1], [3, 2], [1, 0]])
    # a feature that nothing leads to does not stay
    assert pruned(weights, rows, importance, ["error", "feature", "feature", "logit"], 1.0, 1.0)[0] == [0, 1, 3]


def test_what_the_graph_refuses(tokenizer: Tokenizer, recurrent: Model):
    model, transcoders = made("gated", tokenizer)
    with pytest.raises(ConfigError, match="no MLPs that write into a stream"):
        attribution_graph(recurrent, TEXT, transcoders)
    with pytest.raises(ConfigError, match="is a sparse autoencoder"):
        attribution_graph(model, TEXT, [SparseAutoencoder(16, 20, "l1", name="layers.0.mlp_out")])
    with pytest.raises(ConfigError, match=r"two transcoders of layers\.0\.mlp"):
        attribution_graph(model, TEXT, [transcoders[0], transcoders[0]])
    with pytest.raises(ConfigError, match="the stream has 16"):
        attribution_graph(model, TEXT, [Transcoder(8, 8, 20, "l1", name="layers.0.mlp")])
    with pytest.raises(InputError, match="position 40 is outside"):
        attribution_graph(model, TEXT, transcoders, position=40)
    with pytest.raises(ConfigError, match="minus needs a token"):
        attribution_graph(model, TEXT, transcoders, minus="a")
    assert isinstance(attribution_graph(model, TEXT, transcoders, position=3), AttributionGraph)
