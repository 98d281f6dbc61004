"""How one published architecture spells what a network is made of: a `Family` is plain data, used in both directions.

Reading never guesses and never drops: every key of a config is handled, knowingly ignored with a reason, or an error
that names it; and every tensor has its place.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import Tensor

from cutaway.errors import ConfigError, CutawayError
from cutaway.models.config import NetworkConfig
from cutaway.models.config_parts import MOST
from cutaway.models.families._heads import read_head, write_head
from cutaway.models.families._layouts import SAME, Layout
from cutaway.settings import build

# keys that every family may hold and that change no number of a forward pass
BOOKKEEPING = {
    "_name_or_path": "where it was loaded from",
    "architectures": "read by the format, to find the head",
    "model_type": "read by the format, to find the family",
    "auto_map": "names code in the checkpoint's own files, which Cutaway never runs",
    "transformers_version": "what wrote the file",
    "dtype": "the file's tensors state their own",
    "torch_dtype": "the file's tensors state their own",
    "use_cache": "an argument in Cutaway",
    "return_dict": "of transformers' interface",
    "output_attentions": "recorded through a tap in Cutaway",
    "output_hidden_states": "recorded through a tap in Cutaway",
    "_attn_implementation": "a choice of kernel",
    "_attn_implementation_autoset": "a choice of kernel",
    "chunk_size_feed_forward": "a choice of kernel: the numbers stay",
    "gradient_checkpointing": "of training",
    "initializer_range": "of fresh weights",
    "is_encoder_decoder": "says of the family what its name says",
    "bos_token_id": "the tokenizer's",
    "eos_token_id": "the tokenizer's",
    "pad_token_id": "the tokenizer's",
    "cls_token_id": "the tokenizer's",
    "sep_token_id": "the tokenizer's",
    "unk_token_id": "the tokenizer's",
    "tokenizer_class": "the tokenizer's",
    "id2label": "read by the head",
    "label2id": "read by the head",
    "problem_type": "read by the head",
    "sentence_transformers": "what a ranking makes of the head's number, which orders texts all the same",
    "sbert_ce_default_activation_function": "the same, as it was spelled before",
    "task_specific_params": "of generation",
    "attention_dropout": "of training",
    "classifier_dropout": "of training",
    "finetuning_task": "what it was trained on",
    "pretraining_tp": "how the work was split in pre-training",
    **dict.fromkeys(
        (
            *("max_length", "min_length", "do_sample", "temperature", "top_k", "top_p", "typical_p", "num_beams"),
            *("num_beam_groups", "diversity_penalty", "length_penalty", "early_stopping", "repetition_penalty"),
            *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences"),
            *("suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"),
            *("force_bos_token_to_be_generated", "forced_decoder_ids", "prefix", "remove_invalid_values"),
        ),
        "of generation",
    ),
}

ACTIVATION_NAMES = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}


class Keys:
    """A config's keys while they are read; remembers which were asked for.

    Args:
        values: the config.
        defaults: of keys that the config leaves out.
        where: what to call it in messages.
    """

    def __init__(self, values: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> None:
        self.values, self.defaults, self.where = values, defaults, where
        self.asked: set[str] = set()

    def take(self, key: str, default: Any = None) -> Any:
        """The key's value, or what leaving it out means."""
        self.asked.add(key)
        return self.values.get(key, self.defaults.get(key, default))

    def whole(self, key: str) -> int:
        """The key's value, a whole number.

        Raises:
            ConfigError: it is something else.
        """
        value = self.take(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{key} in {self.where} must be a whole number, but {value!r} was given")
        return value

    def refuse(self, key: str, value: Any, why: str) -> ConfigError:
        """The error that says which key and value are not supported."""
        return ConfigError(f"{key} = {value!r} in {self.where} is not supported: {why}")

    def finish(self, ignored: Mapping[str, str]) -> None:
        """Refuse every key that was neither asked for nor is ignored; null sets nothing."""
        left = [
            key for key, value in self.values.items() if key not in self.asked | ignored.keys() and value is not None
        ]
        if left:
            shown = ", ".join(f"{key} = {self.values[key]!r}" for key in left[:8])
            raise ConfigError(
                f"{self.where} holds keys that Cutaway does not know, so it cannot compute what they ask for: {shown}"
            )


def activation(keys: Keys, key: str) -> str:
    """Our name of the activation that a key names."""
    value = keys.take(key)
    if not isinstance(value, str) or value not in ACTIVATION_NAMES:
        raise keys.refuse(key, value, f"the activations are {', '.join(ACTIVATION_NAMES)}")
    return ACTIVATION_NAMES[value]


@dataclass(frozen=True)
class Rule:
    """How a kind of tensor is named and laid out there, and here.

    Attributes:
        theirs: its name in the checkpoint, within the family's prefix. {i} is the layer, {e} the expert; a trailing *
            stands for weight and bias.
        ours: its name in the network; or several, which the checkpoint holds in one.
        layout: how one becomes the other.
        when: of our config, whether the rule holds; None: always.
    """

    theirs: str
    ours: str | tuple[str, ...]
    layout: Layout = SAME
    when: Callable[[Any], bool] | None = None


@dataclass(frozen=True)
class Place:
    """A rule for certain tensors: theirs become ours through the layout, and back."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    layout: Layout


def _nothing(_: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Family:
    """A published architecture.

    Attributes:
        model_type: its name in a config.
        source: the paper or page that it comes from.
        config: class of our config.
        keys: key of its config -> field of ours, where the value is the same (activations are translated).
        defaults: what leaving a key out means.
        features: fields of ours that it always has so.
        rules: names and layouts of tensors.
        heads: name of a class of architecture -> what stands on top; none: its configs name no class, and there is one.
        styles: head -> fields of ours that are always so under it; an activation of None is that of the layers.
        ignored: keys that change no number of a forward pass -> why.
        only: keys that are supported at these values alone.
        read: further fields of ours.
        write: further keys of its config; also those of `only` that have to be written.
        prefix: of the tensors, where a head stands on top.
        prefixes: head -> prefix, where it has another.
        outside: tensors that stand outside the prefix begin with these.
        skipped: tensors that are knowingly left out, as ends of names -> why.
        spellings: older ends of tensors' names -> what they are called now.
        copies: tensors that a checkpoint may hold once more under another name -> ours, which they must equal.
        by_tensors: fields of ours that no key states -> whether they hold, by our config and the tensors' names.
    """

    model_type: str
    source: str
    config: type[NetworkConfig]
    keys: Mapping[str, str]
    rules: Sequence[Rule]
    heads: Mapping[str, str]
    styles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    read: Callable[[Keys], dict[str, Any]] = _nothing
    write: Callable[[Any], dict[str, Any]] = _nothing
    prefix: str = "model."
    prefixes: Mapping[str, str] = field(default_factory=dict)
    outside: tuple[str, ...] = ("lm_head.", "score.", "qa_outputs.")
    skipped: Mapping[str, str] = field(default_factory=dict)
    spellings: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)
    by_tensors: Mapping[str, Callable[[Any, Collection[str]], bool]] = field(default_factory=dict)

    # config

    def to_config(self, values: Mapping[str, Any], where: str = "the config") -> NetworkConfig:
        """Our config of a published one.

        Raises:
            ConfigError: a key or value that is not supported, named; or numbers that do not fit each other.
        """
        keys = Keys(values, self.defaults, where)
        found: dict[str, Any] = dict(self.features)
        for theirs, ours in self.keys.items():
            value = activation(keys, theirs) if ours == "activation" else keys.take(theirs)
            if isinstance(value, int) and value > MOST.get(ours, value):  # before anything is listed by layer
                raise keys.refuse(theirs, value, f"it can be up to {MOST[ours]:,}")
            if value is not None:
                found[ours] = value
        try:
            if self._names_head:
                found |= read_head(keys, self.heads)
                style = self.styles.get(found["head"], {})
                found |= {ours: found["activation"] if value is None else value for ours, value in style.items()}
            found |= self.read(keys)
        except CutawayError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # a number that overflows or divides by zero, a list where a name should be: the file's fault, and its words
            raise ConfigError(f"{where} holds a value that its key cannot have: {error}") from error
        for key, allowed in self.only.items():
            if (value := keys.take(key, allowed[0])) not in allowed:
                raise keys.refuse(key, value, f"it can be {' or '.join(map(repr, allowed))}")
        keys.finish(BOOKKEEPING | dict(self.ignored))
        return build(self.config, found, where=where)

    def from_config(self, config: NetworkConfig) -> dict[str, Any]:
        """The published config of ours.

        Raises:
            ConfigError: this family cannot express it; names the features that stand in the way.
        """
        if not isinstance(config, self.config):
            raise ConfigError(f"a network of the kind {config.kind} cannot be a {self.model_type}")
        written: dict[str, Any] = {"model_type": self.model_type}
        spelled = {ours: theirs for theirs, ours in reversed(ACTIVATION_NAMES.items())}
        for theirs, ours in self.keys.items():
            value = getattr(config, ours)
            written[theirs] = spelled[value] if ours == "activation" else value
        if self._names_head:
            written |= write_head(config, self.heads)
        written |= self.write(config)
        read = self.comparable(self.to_config(written, f"the {self.model_type} config"))
        meant = self.comparable(config)
        obstacles = [
            f"{f.name} is {getattr(meant, f.name)!r}, there it is {getattr(read, f.name)!r}"
            for f in fields(config)
            if f.name != "dropout" and f.name not in self.by_tensors and getattr(meant, f.name) != getattr(read, f.name)
        ]
        if obstacles:
            raise ConfigError(f"this network cannot be expressed as {self.model_type}: " + "; ".join(obstacles))
        return written

    @property
    def _names_head(self) -> bool:
        """Whether its configs name a class of architecture, and with it a head of ours."""
        return bool(self.heads) and any(f.name == "head" for f in fields(self.config))

    def comparable(self, config: NetworkConfig) -> NetworkConfig:
        """The config with what computes the same spelled the same, where the architecture can only say it one way."""
        return config

    # tensors

    def prefix_of(self, config: NetworkConfig) -> str:
        """The prefix of the tensors of a network with its head."""
        return self.prefixes.get(getattr(config, "head", ""), self.prefix)

    def settle(self, config: NetworkConfig, names: Collection[str]) -> NetworkConfig:
        """The config with the fields that only a checkpoint's tensors tell."""
        return replace(config, **{name: holds(config, names) for name, holds in self.by_tensors.items()})

    def spelled(self, name: str) -> str:
        """A tensor's name as the rules spell it."""
        for old, new in self.spellings.items():
            if name.endswith(old):
                return name.removesuffix(old) + new
        return name

    def places(self, config: NetworkConfig, expected: Mapping[str, Any], *, prefixed: bool = True) -> list[Place]:
        """Where every tensor of a network is found in a checkpoint.

        Args:
            config: of the network.
            expected: its state dict, for the names.
            prefixed: whether the checkpoint's names begin with the prefix.
        """
        found: list[Place] = []
        covered: set[str] = set()
        prefix = self.prefix_of(config)
        for rule in self.rules:
            if rule.when is not None and not rule.when(config):
                continue
            first = rule.ours if isinstance(rule.ours, str) else rule.ours[0]
            layers = getattr(config, "encoder_layers" if first.startswith("encoder.") else "layers", 0)
            for theirs, ours in _spelled_out(rule, layers):
                if not all(name in expected for name in ours):
                    continue
                one_of = [theirs]
                if "{e}" in theirs:
                    one_of = [theirs.replace("{e}", str(e)) for e in range(getattr(config, "experts", 0))]
                outside = not prefixed or theirs.startswith(self.outside)
                names = tuple(name if outside else prefix + name for name in one_of)
                found.append(Place(names, ours, rule.layout))
                covered.update(ours)
        assert covered == set(expected), f"{self.model_type} has no rule for {sorted(set(expected) - covered)}"
        return found

    def skips(self, name: str) -> bool:
        """Whether a tensor is knowingly left out."""
        return name.endswith(tuple(self.skipped))


def _spelled_out(rule: Rule, layers: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The rule's names for every layer, and for weight and bias."""
    ours = (rule.ours,) if isinstance(rule.ours, str) else rule.ours
    for part in ("weight", "bias") if rule.theirs.endswith("*") else ("",):
        names = [name.removesuffix("*") + (part if name.endswith("*") else "") for name in (rule.theirs, *ours)]
        if "{i}" not in rule.theirs:
            yield names[0], tuple(names[1:])
            continue
        for i in range(layers):
            placed = [name.replace("{i}", str(i)) for name in names]
            yield placed[0], tuple(placed[1:])


def read_places(places: Sequence[Place], tensors: Callable[[str], Tensor], config: Any) -> dict[str, Tensor]:
    """Our tensors by name, out of a checkpoint's; views of them where the layout allows."""
    state: dict[str, Tensor] = {}
    for place in places:
        found = place.layout.into([tensors(name) for name in place.theirs], config)
        state.update(zip(place.ours, found, strict=True))
    return state


def write_places(places: Sequence[Place], state: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
    """A checkpoint's tensors by name, out of ours."""
    tensors: dict[str, Tensor] = {}
    for place in places:
        tensors.update(zip(place.theirs, place.layout.back([state[name] for name in place.ours], config), strict=True))
    return tensors
