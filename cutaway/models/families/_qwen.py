"""What Qwen 2 and 3 share: windows from a certain layer on, switched by a key of their own."""

from typing import Any

from cutaway.models.config import DecoderConfig
from cutaway.models.families._decoders import by_layer_types, head_dim, largest_window, layer_types
from cutaway.models.families._family import Keys
from cutaway.models.families._rope import read_rope, write_rope


def read_qwen(keys: Keys) -> dict[str, Any]:
    """Rotary positions and windows."""
    layers, first = keys.whole("num_hidden_layers"), keys.whole("max_window_layers")
    window, switched = keys.take("sliding_window"), keys.take("use_sliding_window")
    window = window if switched else None
    types = ["sliding_attention" if window and i >= first else "full_attention" for i in range(layers)]
    rope = read_rope(keys, head_dim(keys), keys.whole("max_position_embeddings"))
    return rope | by_layer_types(keys, types, window)


def write_qwen(config: DecoderConfig) -> dict[str, Any]:
    """The reverse of `read_qwen`."""
    window = largest_window(config)
    kinds = {"layer_types": layer_types(config), "max_window_layers": config.layers}
    return write_rope(config) | {"use_sliding_window": window is not None, "sliding_window": window} | kinds
