"""Adapters without an outsider: what is shared, how they learn, what is refused, and that a look inside adds up."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cutaway import load_model, save_model
from cutaway.errors import ConfigError, CutawayError, DamagedFile, InputError, NonFinite
from cutaway.generation.quantize import quantize
from cutaway.interp import ledger, record
from cutaway.models import DecoderConfig, EncoderConfig, Model, RecurrentConfig, build_network
from cutaway.models.adapter_config import AdapterConfig, read_config, write_config
from cutaway.models.adapters import add_adapter, load_adapter, merge_adapter, save_adapter
from cutaway.models.formats.ggml import dequantise
from cutaway.models.formats.quantise import quantise
from cutaway.models.low_rank import LowRankLinear, parts_of
from cutaway.models.quantised import blocks_in
from cutaway.tokenizers import train_tokenizer

TOKENIZER = train_tokenizer(["the cat sat on the mat, and the dog did not"] * 3, "bpe", 300)
TEXT = "the cat sat"
ALL = AdapterConfig(r=4, lora_alpha=9, use_dora=True)


def base_of(**keys: Any) -> Model:
    torch.manual_seed(0)
    config = DecoderConfig(TOKENIZER.vocab_size, 64, 2, 32, 4, kv_heads=2, mlp_width=64, qk_norm=False)
    network = build_network(replace(config, **keys))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.add_(torch.randn(parameter.shape) * (0.1 if "norm" in name else 0.15))
    return Model(network.eval(), TOKENIZER, "base")


def learned(model: Model, config: AdapterConfig = ALL) -> Model:
    made = add_adapter(model, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    return made


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_adapter(learned(base_of()), tmp_path / "adapter")


def change(folder: Path, **keys: Any) -> None:
    """Other keys in the config, as a stranger may write them."""
    (folder / "manifest.json").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def change_tensors(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Other tensors, by the ends of their names; None: without."""
    (folder / "manifest.json").unlink(missing_ok=True)
    path = folder / "adapter_model.safetensors"
    held = load_file(path)
    for end, tensor in tensors.items():
        (name,) = [name for name in held if name.endswith(end)] or [end]
        held.pop(name, None)
        if tensor is not None:
            held[name] = tensor
    save_file(held, path)


Q0 = "layers.0.self_attn.q_proj"


# what it is


def test_every_tensor_of_the_base_is_shared_and_stays_as_it_is() -> None:
    base = base_of()
    before = {name: tensor.clone() for name, tensor in base.network.state_dict().items()}
    model = learned(base)
    theirs = {parameter.data_ptr() for parameter in model.network.parameters() if not parameter.requires_grad}
    assert {parameter.data_ptr() for parameter in base.network.parameters()} == theirs
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.network.state_dict().items())
    assert all(parameter.requires_grad for parameter in base.network.parameters())  # the base may go on learning
    assert not torch.equal(model.logits(TEXT), base.logits(TEXT))


@pytest.mark.parametrize("quantised", [False, True])
def test_saved_and_loaded_it_is_the_same(quantised: bool, tmp_path: Path) -> None:
    base = quantize(base_of(), "int8").model if quantised else base_of()
    model = learned(base)
    save_adapter(model, tmp_path / "a")
    again = load_adapter(base, tmp_path / "a")
    assert again.adapter is not None
    assert replace(again.adapter.config, target_modules=None) == replace(ALL, target_modules=None)
    first, second = parts_of(model.network), parts_of(again.network)
    assert first.keys() == second.keys()
    for name, part in first.items():
        for one, other in zip(part.parameters(recurse=False), second[name].parameters(recurse=False), strict=True):
            assert torch.equal(one, other)
    save_adapter(again, tmp_path / "b")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("config", [ALL, replace(ALL, target_modules=("lm_head", "embed_tokens"), use_dora=False)])
def test_merged_is_unmerged_and_a_model_of_its_own(quantised: bool, config: AdapterConfig, tmp_path: Path) -> None:
    base = quantize(base_of(tied=True), "int8").model if quantised else base_of(tied=True)
    model = learned(base, config)
    merged = merge_adapter(model)
    torch.testing.assert_close(merged.logits(TEXT), model.logits(TEXT), atol=1e-5, rtol=1e-5)
    touched = {f"{name}.weight" for name in parts_of(model.network)}
    assert blocks_in(merged.network).keys() == blocks_in(base.network).keys() - touched  # numbers where it has parts
    for format in ("cutaway", "huggingface"):
        opened = load_model(save_model(merged, tmp_path / format, format))
        torch.testing.assert_close(opened.logits(TEXT), merged.logits(TEXT), atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="merge_adapter"):
        save_model(model, tmp_path / "other")
    with pytest.raises(ConfigError, match="no adapter"):
        merge_adapter(merged)


def test_rounding_a_merged_matrix_back_to_few_bits_loses_more_than_keeping_numbers() -> None:
    """Why merging makes numbers of blocks: of a small adapter little is left between the steps of four bits."""
    base = quantize(base_of(width=64), "int4").model
    model = add_adapter(base, AdapterConfig(r=4, lora_alpha=4))
    torch.manual_seed(1)
    with torch.no_grad():
        for part in parts_of(model.network).values():
            part.lora_B.normal_(std=0.01)
    lost = []
    for name, blocks in blocks_in(base.network).items():
        part = parts_of(model.network).get(name.removesuffix(".weight"))
        if isinstance(part, LowRankLinear):
            change = part.weight - part.base.weight
            stored = torch.frombuffer(
                bytearray(b"".join(quantise(part.weight.detach(), blocks.kind))), dtype=torch.uint8
            )
            rounded = dequantise(stored, blocks.kind).view(part.weight.shape)
            lost.append(float(((rounded - part.weight).norm() / change.norm()).detach()))
    assert min(lost) > 0.5  # of the change itself


def test_a_step_of_training_changes_the_adapter_alone_and_lowers_the_loss() -> None:
    base = base_of()
    before = {name: tensor.clone() for name, tensor in base.network.state_dict().items()}
    model = add_adapter(base, replace(ALL, lora_dropout=0.0))
    learns = {name for name, parameter in model.network.named_parameters() if parameter.requires_grad}
    assert learns == {
        f"{name}.{part}" for name in parts_of(model.network) for part in ("lora_A", "lora_B", "magnitude")
    }
    optimiser = torch.optim.AdamW([p for p in model.network.parameters() if p.requires_grad], lr=1e-2)
    ids = model.ids("the cat sat on the mat, and the dog did not")

    def loss() -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model.network(ids)[0, :-1], ids[0, 1:])

    model.network.train()
    losses = []
    for _ in range(5):
        optimiser.zero_grad()
        losses.append(loss())
        losses[-1].backward()
        optimiser.step()
    losses = [float(value.detach()) for value in losses]
    assert losses[1] < losses[0]
    assert losses[-1] < 0.9 * losses[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.network.state_dict().items())
    assert all(parameter.grad is None for parameter in base.network.parameters())


def test_gradients_are_those_of_the_formed_weight() -> None:
    """The product's parts against autograd through W + s·BA itself, in float64."""
    base = Model(base_of().network.double(), TOKENIZER)
    model = learned(base, replace(ALL, use_dora=False))
    parts = parts_of(model.network)
    found = torch.autograd.grad(model.network(model.ids(TEXT)).pow(2).sum(), [p.lora_A for p in parts.values()])
    formed = {f"{name}.weight": part.weight for name, part in parts.items()}
    plain = merge_adapter(model).network
    expected = torch.autograd.grad(
        torch.func.functional_call(plain, formed, (model.ids(TEXT),)).pow(2).sum(), [p.lora_A for p in parts.values()]
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("quantised", [False, True])
def test_a_ledger_of_an_adapted_model_adds_up(quantised: bool) -> None:
    base = quantize(base_of(), "int8").model if quantised else base_of()
    model = learned(base)
    made = ledger(model, TEXT)
    expected = float(model.logits(TEXT)[0, -1].max())
    assert made.total == pytest.approx(expected, abs=1e-4)
    assert {term.name for term in made.terms} == {term.name for term in ledger(base, TEXT).terms}
    recording = record(model, TEXT, "layers.*.attn.q")
    merged = record(merge_adapter(model), TEXT, "layers.*.attn.q")
    torch.testing.assert_close(recording["layers.1.attn.q"], merged["layers.1.attn.q"], atol=1e-5, rtol=1e-5)


# what is refused


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"peft_type": "LOHA"}, "peft_type = 'LOHA'"),
        ({"peft_type": None}, "does not say peft_type"),
        ({"r": 0}, "rank of r must be"),
        ({"r": True}, "r in .* must be int"),
        ({"r": 2**40}, "rank of r must be"),
        ({"r": 5}, r"has shape \(4, 32\) instead of \(5, 32\)"),
        ({"lora_alpha": "large"}, "lora_alpha"),
        ({"use_dora": False}, "left over: .*lora_magnitude_vector"),
        ({"target_modules": ["k_proj"]}, "left over: .*down_proj.lora_A"),
        ({"target_modules": ["v_proj"], "exclude_modules": ["v_proj"]}, "left over: "),
        ({"target_modules": ["q_proj"], "layers_to_transform": [1]}, "left over: "),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"lora_bias": True}, "lora_bias = True"),
        ({"target_parameters": ["mlp.experts.down_proj"]}, "target_parameters"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"use_qalora": 1}, "use_qalora = 1"),
        ({"bias": "some"}, "bias"),
        ({"surprise": 1}, "surprise"),
        ({"lora_dropout": 1.5}, "lora_dropout"),
        ({"rank_pattern": {"(a+)+$": 4}}, "one repetition"),
        ({"alpha_pattern": {".*.*.*.*x": 4}}, "one repetition"),
        ({"alpha_pattern": {"[": 4}}, "no expression|one repetition"),
        ({"rank_pattern": {f"layer{i}": 4 for i in range(5000)}}, "there can be 4,096 patterns"),
        ({"rank_pattern": {"(.|.)" * 33 + "x": 4}}, "too many choices"),
        ({"alpha_pattern": {"(a|b)(c|d)(e|f)(g|h)" + "x" * i: 4 for i in range(64)}}, "too many choices"),
    ],
)
def test_t3_a_key_or_value_of_an_adapter_that_is_not_supported_is_named(
    keys: dict[str, Any], said: str, saved: Path
) -> None:
    change(saved, **keys)
    with pytest.raises(CutawayError, match=said):
        load_adapter(base_of(), saved)


def test_what_another_version_of_peft_writes_besides_is_ignored_by_name(saved: Path) -> None:
    change(saved, peft_version="9.9", auto_mapping={"base_model_class": "X", "parent_library": "os"}, loftq_config={})
    change(saved, base_model_name_or_path="/etc/passwd", revision="../..", megatron_core="os", eva_config=None)
    assert load_adapter(base_of(), saved).adapter is not None


@pytest.mark.parametrize(
    ("tensors", "error", "said"),
    [
        ({f"{Q0}.lora_A.weight": torch.full((4, 32), torch.nan)}, NonFinite, "NaN or an infinity"),
        ({f"{Q0}.lora_B.weight": torch.full((32, 4), torch.inf)}, NonFinite, "NaN or an infinity"),
        ({f"{Q0}.lora_A.weight": torch.zeros(4, 31)}, DamagedFile, r"has shape \(4, 31\) instead of \(4, 32\)"),
        ({f"{Q0}.lora_A.weight": torch.zeros(4, 32, dtype=torch.int64)}, ConfigError, "int64"),
        ({f"{Q0}.lora_B.weight": torch.zeros(0, 4)}, DamagedFile, "instead of"),
        ({f"{Q0}.lora_B.weight": None}, DamagedFile, "left over: .*q_proj.lora_A"),
        ({f"{Q0}.lora_magnitude_vector": None}, DamagedFile, "is missing"),
        ({"base_model.model.model.nowhere.lora_A.weight": torch.zeros(4, 32)}, DamagedFile, "left over: .*nowhere"),
        ({"base_model.model.lm_head.weight": torch.zeros(300, 32)}, DamagedFile, "left over: .*lm_head"),
        ({"../../x": torch.zeros(1)}, DamagedFile, "left over: ../../x"),
    ],
)
def test_t5_tensors_of_an_adapter_must_fit_its_base(
    tensors: dict[str, torch.Tensor | None], error: type[CutawayError], said: str, saved: Path
) -> None:
    change_tensors(saved, **tensors)
    with pytest.raises(error, match=said):
        load_adapter(base_of(), saved)


def test_t5_a_rank_that_the_file_only_claims_takes_no_memory(saved: Path) -> None:
    """The header of a few bytes states tensors of terabytes."""
    (saved / "manifest.json").unlink()
    header = {
        f"base_model.model.model.{Q0}.lora_{part}.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 2**42]}
        for part, shape in (("A", [2**35, 32]), ("B", [32, 2**35]))
    }
    text = json.dumps(header).encode()
    (saved / "adapter_model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"0" * 64)
    change(saved, r=2**16)
    with pytest.raises(DamagedFile, match="safetensors"):
        load_adapter(base_of(), saved)


def test_an_adapter_of_another_base_is_refused(saved: Path) -> None:
    for other in (base_of(width=40, head_dim=8, heads=4), base_of(layers=1)):
        with pytest.raises(DamagedFile, match="does not fit base"):
            load_adapter(other, saved)
    encoder = EncoderConfig(TOKENIZER.vocab_size, 64, 2, 32, 4, norm_place="sum", position="learned", gated=False)
    with pytest.raises(CutawayError):
        load_adapter(Model(build_network(encoder).eval(), TOKENIZER), saved)
    recurrent = RecurrentConfig(TOKENIZER.vocab_size, 64, 1, 32, 32)
    with pytest.raises(ConfigError, match="no published family"):
        load_adapter(Model(build_network(recurrent).eval(), TOKENIZER), saved)
    with pytest.raises(ConfigError, match="has an adapter already"):
        load_adapter(load_adapter(base_of(), saved), saved)


def test_t1_a_pickled_adapter_is_refused(saved: Path) -> None:
    (saved / "adapter_model.safetensors").rename(saved / "adapter_model.bin")
    with pytest.raises(InputError, match="can run code when it is opened"):
        load_adapter(base_of(), saved)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_t7_a_link_in_the_place_of_an_adapters_file_is_refused(name: str, saved: Path, tmp_path: Path) -> None:
    (saved / "manifest.json").unlink()
    (saved / name).rename(tmp_path / name)
    (saved / name).symlink_to(tmp_path / name)
    with pytest.raises(DamagedFile, match="link to a place outside"):
        load_adapter(base_of(), saved)


def test_t7_an_adapter_is_not_saved_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="link"):
        save_adapter(learned(base_of()), tmp_path / "link")
    assert not list((tmp_path / "outside").iterdir())


def test_a_damaged_byte_is_noticed_where_there_are_checksums(saved: Path) -> None:
    path = saved / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match="checksum"):
        load_adapter(base_of(), saved)


def test_what_is_no_adapter_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        load_adapter(base_of(), tmp_path / "nowhere")
    with pytest.raises(InputError, match="so it is no adapter"):
        load_adapter(base_of(), tmp_path)
    with pytest.raises(ConfigError, match="unknown target_modules"):
        add_adapter(base_of(), AdapterConfig(target_modules=("nothing",)))
    with pytest.raises(ConfigError, match="no adapter to save"):
        save_adapter(base_of(), tmp_path / "a")


def test_a_config_survives_being_written() -> None:
    config = AdapterConfig(
        r=3,
        lora_alpha=1.5,
        target_modules=("q_proj", "v_proj"),
        rank_pattern={"q_proj": 2},
        alpha_pattern={r"layers\.\d+\.v_proj": 4},
        layers_to_transform=(0,),
        modules_to_save=("lm_head",),
        bias="lora_only",
        use_rslora=True,
        task_type="CAUSAL_LM",
        base_model_name_or_path="owner/name",
    )
    assert read_config(json.loads(json.dumps(write_config(config, turned=True))), "here") == config
    assert config.rank("model.layers.1.self_attn.q_proj") == 2
    assert config.scale("model.layers.1.v_proj") == pytest.approx(4 / 3**0.5)
    assert config.scale("model.layers.1.q_proj") == pytest.approx(1.5 / 2**0.5)
