"""GGUF files of published decoders: read as llama.cpp's converter writes them, written as it would, without a loss."""

import dataclasses
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from as_llamacpp import NAMES, as_llamacpp
from reference import shake, token_ids, write_checkpoint
from test_parity_decoders import LLAMA3, LONG, ODD, SMALL, YARN, gpt2, neox

from cutaway.errors import ConfigError, DamagedFile
from cutaway.models import DecoderConfig, RecurrentConfig
from cutaway.models.assemble import build_network
from cutaway.models.formats.gguf import GGUF, read_gguf
from cutaway.models.formats.gguf_architectures import ARCHITECTURES
from cutaway.models.formats.gguf_models import expressible, open_gguf, write_network
from cutaway.models.formats.huggingface import open_huggingface
from cutaway.settings import build

transformers = pytest.importorskip("transformers")

LENGTH = 23
LOCAL = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
}
MOE = SMALL | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": True}
UNTIED_AGAIN = {"olmo2", "gptneox"}  # llama.cpp wants their output matrix even where it is the embedding
SHAPES: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "llama": (
        "LlamaConfig",
        "LlamaForCausalLM",
        [
            SMALL,
            ODD | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "rope_parameters": LLAMA3},
            SMALL | {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5}},
            SMALL | {"rope_parameters": YARN},
            SMALL | {"rope_parameters": YARN | {"attention_factor": 1.3, "beta_fast": 8.0}, "rms_norm_eps": 1e-5},
            SMALL | {"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 8192, "factor": 32.0}},
        ],
    ),
    "mistral": (
        "MistralConfig",
        "MistralForCausalLM",
        [
            SMALL | {"sliding_window": None},
            ODD | {"sliding_window": None, "tie_word_embeddings": True},
            SMALL | {"sliding_window": None, "num_key_value_heads": 4, "rms_norm_eps": 1e-3},
        ],
    ),
    "mixtral": (
        "MixtralConfig",
        "MixtralForCausalLM",
        [
            SMALL | {"num_local_experts": 4, "sliding_window": None},
            SMALL | {"num_local_experts": 3, "num_experts_per_tok": 3, "tie_word_embeddings": True},
            ODD | {"num_local_experts": 5, "num_experts_per_tok": 1},
        ],
    ),
    "qwen2": (
        "Qwen2Config",
        "Qwen2ForCausalLM",
        [SMALL | {"num_key_value_heads": 4}, SMALL | {"tie_word_embeddings": True}, SMALL | {"rope_parameters": YARN}],
    ),
    "qwen3": (
        "Qwen3Config",
        "Qwen3ForCausalLM",
        [SMALL | {"head_dim": 8}, ODD | {"tie_word_embeddings": True}, SMALL | {"head_dim": 12, "rope_theta": 1e6}],
    ),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        [
            MOE | {"moe_intermediate_size": 20},
            MOE | {"moe_intermediate_size": 7, "num_experts_per_tok": 1, "tie_word_embeddings": True},
            ODD | {"num_experts": 3, "num_experts_per_tok": 3, "norm_topk_prob": True, "moe_intermediate_size": 12},
        ],
    ),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        [gpt2(), gpt2(n_inner=50), gpt2(tie_word_embeddings=False, layer_norm_epsilon=1e-4)],
    ),
    "gpt_neox": (
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        [
            neox(),
            neox(
                use_parallel_residual=False,
                rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0},
            ),
            neox(rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
        ],
    ),
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        [
            SMALL | {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 8},
            ODD | {"sliding_window": 30, "query_pre_attn_scalar": 10, "attn_logit_softcapping": 2.0},
            SMALL | {"head_dim": 16, "query_pre_attn_scalar": 16, "final_logit_softcapping": 3.0, "sliding_window": 4},
        ],
    ),
    "gemma3_text": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        [
            SMALL | {"head_dim": 8, "sliding_window": 5, "num_hidden_layers": 7, "query_pre_attn_scalar": 8},
            ODD | {"sliding_window": 3, "query_pre_attn_scalar": 10, "final_logit_softcapping": 5.0},
            SMALL
            | {"head_dim": 8, "sliding_window": 6, "num_hidden_layers": 6, "query_pre_attn_scalar": 8}
            | {"rope_parameters": LOCAL, "tie_word_embeddings": False},
        ],
    ),
    "phi3": (
        "Phi3Config",
        "Phi3ForCausalLM",
        [
            SMALL,
            SMALL | {"sliding_window": 7, "tie_word_embeddings": True, "num_key_value_heads": 4},
            SMALL | {"rope_parameters": LONG, "original_max_position_embeddings": 32},  # the text fits
            SMALL | {"rope_parameters": LONG, "original_max_position_embeddings": 16},  # it does not
            SMALL | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        ],
    ),
    "olmo2": (
        "Olmo2Config",
        "Olmo2ForCausalLM",
        [SMALL, SMALL | {"tie_word_embeddings": True}, SMALL | {"num_key_value_heads": 1, "hidden_size": 40}],
    ),
}
CASES = [
    pytest.param((name, i), id=f"{name}-{i}") for name, (_, _, shapes) in SHAPES.items() for i in range(len(shapes))
]


def write(family: str, shape: dict[str, Any], folder: Path) -> Any:
    config_class, model_class, _ = SHAPES[family]
    config = getattr(transformers, config_class)(**shape)
    config._attn_implementation = config._experts_implementation = "eager"
    return write_checkpoint(lambda: getattr(transformers, model_class)(config), folder)


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path]:
    family, number = request.param
    folder = tmp_path_factory.mktemp(family)
    return family, write(family, SHAPES[family][2][number], folder), folder


def test_every_architecture_is_tried():
    assert {NAMES.get(family, family) for family in SHAPES} == set(ARCHITECTURES)


@torch.no_grad()
def test_what_the_converter_writes_computes_what_transformers_computes(case: tuple[str, Any, Path]):
    _, peer, folder = case
    network = open_gguf(read_gguf(as_llamacpp(folder, folder / "theirs.gguf")))
    ids = token_ids(network.config.vocab_size, 2, LENGTH)
    assert (network(ids) - peer(ids).logits).abs().max() <= 5e-5


@torch.no_grad()
def test_there_and_back_the_logits_are_equal(case: tuple[str, Any, Path]):
    family, _, folder = case
    network, _ = open_huggingface(folder)
    write_network(network, folder / "ours.gguf", "F32", name=NAMES.get(family, family))
    again = open_gguf(read_gguf(folder / "ours.gguf"))
    ids = token_ids(network.config.vocab_size, 2, LENGTH)
    assert torch.equal(again(ids), network(ids))


def test_what_is_written_is_what_the_converter_writes(case: tuple[str, Any, Path]):
    family, _, folder = case
    theirs = gguf.GGUFReader(as_llamacpp(folder, folder / "theirs.gguf"))
    network, _ = open_huggingface(folder)
    write_network(network, folder / "ours.gguf", "F32", name=NAMES.get(family, family))
    ours = gguf.GGUFReader(folder / "ours.gguf")
    mine, wanted = ({t.name: t for t in file.tensors} for file in (ours, theirs))
    if NAMES.get(family, family) in UNTIED_AGAIN and network.config.tied:
        mine.pop("output.weight")
    assert mine.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert mine[name].tensor_type == tensor.tensor_type
        if name == "rope_freqs.weight":  # computed there in float32, here in float64
            np.testing.assert_allclose(mine[name].data, tensor.data, rtol=2e-6)
        else:
            assert np.array_equal(mine[name].data, tensor.data), name
    for key, value in theirs.fields.items():
        if key.startswith(f"{NAMES.get(family, family)}."):
            if key.endswith("sliding_window") and not value.contents():
                continue
            if (
                key.endswith("original_context_length")
                and "rope_factors_long.weight" not in wanted
                and family == "phi3"
            ):
                continue  # of nothing
            assert ours.fields[key].contents() == value.contents(), key
            assert ours.fields[key].types == value.types, key


# it reads these, at the values that it takes for granted: sizes of heads, scales, caps, positions
WIDE = {"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 5}
IN_TRANSFORMERS: dict[str, list[dict[str, Any]]] = {
    "llama": [SMALL, ODD | {"tie_word_embeddings": True}],
    "mistral": [SMALL | {"sliding_window": None}],
    "qwen2": [SMALL, SMALL | {"tie_word_embeddings": True}],
    "qwen3": [SMALL | {"head_dim": 128}],
    "qwen3_moe": [MOE | {"moe_intermediate_size": 768}],
    "gpt2": [gpt2(n_positions=1024)],
    "gemma2": [SMALL | WIDE],
    "gemma3_text": [SMALL | WIDE | {"num_hidden_layers": 7}],
    "phi3": [SMALL | {"vocab_size": 32_064}],  # its padding is the token 32,000
}


@pytest.mark.parametrize("family", IN_TRANSFORMERS)
@torch.no_grad()
def test_transformers_reads_what_is_written(family: str, tmp_path: Path):
    for number, shape in enumerate(IN_TRANSFORMERS[family]):
        folder = tmp_path / str(number)
        write(family, shape, folder)
        network, _ = open_huggingface(folder)
        tokens = {"tokenizer.ggml.tokens": [str(i) for i in range(network.config.vocab_size)]}  # it counts these
        write_network(network, folder / "ours.gguf", "F32", name=NAMES.get(family, family), metadata=tokens)
        options: dict[str, Any] = {"gguf_file": "ours.gguf", "dtype": torch.float32, "attn_implementation": "eager"}
        peer = transformers.AutoModelForCausalLM.from_pretrained(folder, **options).eval()
        ids = token_ids(network.config.vocab_size, 2, LENGTH)
        assert (network(ids) - peer(ids).logits).abs().max() <= 5e-5


def test_what_a_file_leaves_open_is_computed_as_llamacpp_does(tmp_path: Path):
    """Windows by a pattern, one base for all layers, and another divisor of scores in the largest Gemmas."""
    small: dict[str, Any] = {"vocab_size": 30, "context": 64, "width": 32, "heads": 2, "mlp_width": 8}
    small |= {"norm_plus_one": True, "norm_place": "both", "activation": "gelu_tanh", "embed_scale": 32**0.5}
    for name, layers, pattern, scored in (("gemma2", 46, 2, 16), ("gemma3", 62, 6, 16), ("gemma3", 7, 6, 4)):
        windows = tuple(5 if i % pattern < pattern - 1 else 0 for i in range(layers))
        own = {"score_cap": 50.0, "logit_cap": 30.0, "qk_norm": False} if name == "gemma2" else {}
        own |= {"rotary_base_local": 1e4, "rotary_base": 1e6} if name == "gemma3" else {}
        config = DecoderConfig(**small, **own, layers=layers, head_dim=4, windows=windows, attention_scale=scored**-0.5)
        write_network(build_network(config), tmp_path / "ours.gguf", "F32", name=name)
        written = gguf.GGUFReader(tmp_path / "ours.gguf").fields
        assert f"{name}.attention.sliding_window_pattern" not in written
        assert written[f"{name}.attention.sliding_window"].contents() == 5
        assert open_gguf(read_gguf(tmp_path / "ours.gguf")).config == config


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "dynamic scaling": ({"rotary_scaling": {"kind": "dynamic", "factor": 2.0}}, "llama", "rotary_scaling"),
    "bounds between channels": ({"rotary_scaling": {"kind": "yarn", "truncate": False}}, "llama", "rotary_scaling"),
    "windows of Mistral": ({"windows": (4, 4)}, "llama", "windows"),
    "two windows": ({"windows": (4, 5)}, "phi3", "windows"),
    "an activation": ({"activation": "relu"}, "llama", "activation"),
    "another head": ({"head": "none"}, "llama", "head is 'none', there it is 'causal_lm'"),
    "a capped output": ({"logit_cap": 4.0}, "llama", "logit_cap"),
    "a scale": ({"attention_scale": 1.0}, "llama", "attention_scale"),
    "an output bias": ({"qk_norm": True, "output_bias": True}, "qwen3", "output_bias"),
    "a part of each head": ({"rotary_dim": 4}, "llama", "rope.dimension_count"),
    "weights of all experts": (
        {"experts": 4, "experts_used": 2, "expert_weights_sum_to_one": False},
        "llama",
        "expert_weights_sum_to_one",
    ),
    "experts in some layers": ({"experts": 4, "experts_used": 2, "expert_layers": (1,)}, "llama", "expert_layers"),
    "an uncapped Gemma 2": (
        {"norm_plus_one": True, "norm_place": "both", "activation": "gelu_tanh", "embed_scale": 32**0.5},
        "gemma2",
        "score_cap",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_cannot_be_expressed_says_why(case: str):
    features, name, message = REFUSED[case]
    small: dict[str, Any] = {"vocab_size": 30, "context": 64, "width": 32, "heads": 2, "layers": 2, "qk_norm": False}
    config = build(DecoderConfig, small | features)
    with pytest.raises(ConfigError, match=message):
        expressible(config, name)


def test_the_first_architecture_that_can_express_it_is_taken():
    fields: dict[str, Any] = {"vocab_size": 30, "layers": 2, "width": 32, "heads": 4}
    assert expressible(DecoderConfig(**fields))[0].model_type == "qwen3"
    assert expressible(DecoderConfig(**fields, qk_norm=False))[0].model_type == "llama"
    assert expressible(DecoderConfig(**fields, qk_norm=False, attention_bias=True))[0].model_type == "qwen2"
    assert expressible(DecoderConfig(**fields, experts=4, experts_used=2))[0].model_type == "qwen3moe"
    with pytest.raises(ConfigError, match="recurrent"):
        expressible(RecurrentConfig(30))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> GGUF:
    path = tmp_path_factory.mktemp("plain") / "model.gguf"
    config = DecoderConfig(vocab_size=30, context=64, layers=2, width=32, heads=2, qk_norm=False)
    write_network(build_network(config), path, "F32", name="llama")
    return read_gguf(path)


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a key that is not known": ({"llama.new_trick": 3}, ConfigError, "llama.new_trick = 3|new_trick = 3"),
    "a key that is missing": ({"llama.context_length": ...}, DamagedFile, "lacks the keys llama.context_length"),
    "another vocabulary": ({"llama.vocab_size": 31}, DamagedFile, "vocabulary of 31"),
    "a window": ({"llama.attention.sliding_window": 4}, ConfigError, "attention.sliding_window = 4"),
    "not causal": ({"llama.attention.causal": False}, ConfigError, "attention.causal"),
    "values of another size": ({"llama.attention.value_length": 8}, ConfigError, "value_length"),
    "a kind of scaling": ({"llama.rope.scaling.type": ["yarn"]}, ConfigError, "rope.scaling.type"),
    "longrope without factors": ({"llama.rope.scaling.type": "longrope"}, ConfigError, "no factors"),
    "yarn of another making": (
        {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.yarn_log_multiplier": 0.1},
        ConfigError,
        "yarn_log_multiplier",
    ),
    "yarn that says two things": (
        {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.attn_factor": 2.0}
        | {"llama.rope.scaling.yarn_attn_factor": 5.0},
        ConfigError,
        "yarn_attn_factor",
    ),
    "bounds without yarn": ({"llama.rope.scaling.yarn_beta_fast": 8.0}, ConfigError, "yarn_beta_fast"),
    "a base that is no number": ({"llama.rope.freq_base": "10000"}, ConfigError, "rope.freq_base"),
    "a base of nothing": ({"llama.rope.freq_base": 0.0}, ConfigError, "rotary_base"),
    "other experts": ({"llama.expert_count": 2, "llama.expert_used_count": 3}, ConfigError, "experts_used"),
    "no heads": ({"llama.attention.head_count": 0}, ConfigError, "head"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_named(case: str, plain: GGUF):
    change, kind, message = WRONG[case]
    metadata = {key: value for key, value in (dict(plain.metadata) | change).items() if value is not ...}
    with pytest.raises(kind, match=message):
        open_gguf(dataclasses.replace(plain, metadata=metadata))


def test_tensors_that_do_not_fit_are_named(plain: GGUF):
    tensors = dict(plain.tensors)
    extra = tensors | {"blk.0.attn_sinks.weight": tensors["output_norm.weight"]}
    with pytest.raises(DamagedFile, match=r"left over: blk\.0\.attn_sinks\.weight"):
        open_gguf(dataclasses.replace(plain, tensors=extra))
    for name in ("blk.0.attn_q.weight", "blk.1.ffn_down.weight", "output_norm.weight"):
        other = tensors | {name: tensors["token_embd.weight"]}
        with pytest.raises(DamagedFile, match=name):
            open_gguf(dataclasses.replace(plain, tensors=other))
    for name, message in (
        ("rope_freqs.weight", "rope_freqs.weight has 32 factors"),
        ("rope_factors_long.weight", "rope_factors_long"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_gguf(dataclasses.replace(plain, tensors=tensors | {name: tensors["output_norm.weight"]}))


@pytest.mark.parametrize(("kind", "width"), [("Q4_K", 64), ("Q6_K", 64), ("Q4_0", 40), ("Q8_0", 64), ("BF16", 40)])
def test_rows_that_are_no_whole_number_of_blocks_are_stored_otherwise(kind: str, width: int, tmp_path: Path):
    config = DecoderConfig(vocab_size=30, context=64, layers=2, width=width, heads=2, mlp_width=256)
    notes: list[str] = []
    network = build_network(config)
    shake(network)
    write_network(network, tmp_path / "ours.gguf", kind, note=notes.append)
    file = read_gguf(tmp_path / "ours.gguf")
    kinds = {name: tensor.kind for name, tensor in file.tensors.items()}
    instead = {"Q4_K": "Q5_0", "Q6_K": "Q8_0", "Q4_0": "F16"}.get(kind, kind)
    assert kinds["blk.0.attn_q.weight"] == instead
    assert kinds["blk.0.ffn_down.weight"] == kind  # rows of 256
    assert kinds["blk.0.attn_norm.weight"] == kinds["output_norm.weight"] == "F32"
    assert kinds["token_embd.weight"] == {"Q4_K": "Q8_0"}.get(kind, instead)  # also the output matrix
    assert any(f"rows of {width}" in note and instead in note for note in notes) == (instead != kind)
    assert open_gguf(file).config == config


def test_the_matrix_of_the_logits_is_stored_better(tmp_path: Path):
    config = DecoderConfig(vocab_size=30, context=64, layers=1, width=256, heads=2, tied=False)
    notes: list[str] = []
    write_network(build_network(config), tmp_path / "ours.gguf", "Q4_K", note=notes.append)
    tensors = read_gguf(tmp_path / "ours.gguf").tensors
    assert (tensors["output.weight"].kind, tensors["token_embd.weight"].kind) == ("Q6_K", "Q4_K")
    assert any("output.weight" in note and "Q6_K" in note for note in notes)
