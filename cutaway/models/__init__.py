"""Ids to logits: the networks, their configs, and the tap that opens them."""

from cutaway.models.assemble import Network, build_network
from cutaway.models.config import (
    PRESETS,
    DecoderConfig,
    EncoderConfig,
    NetworkConfig,
    RecurrentConfig,
    RotaryScaling,
    Seq2SeqConfig,
    config_from_dict,
    config_to_dict,
    decoder_of_size,
    network_of_size,
)
from cutaway.models.decoder import Decoder
from cutaway.models.embedding import embed
from cutaway.models.encoder import Encoder
from cutaway.models.gru import Recurrent
from cutaway.models.model import Model, load_model, save_model
from cutaway.models.seq2seq import Seq2Seq
from cutaway.models.tap import OFF, ActiveTap, Tap, match_names

__all__ = [
    "OFF",
    "PRESETS",
    "ActiveTap",
    "Decoder",
    "DecoderConfig",
    "Encoder",
    "EncoderConfig",
    "Model",
    "Network",
    "NetworkConfig",
    "Recurrent",
    "RecurrentConfig",
    "RotaryScaling",
    "Seq2Seq",
    "Seq2SeqConfig",
    "Tap",
    "build_network",
    "config_from_dict",
    "config_to_dict",
    "decoder_of_size",
    "embed",
    "load_model",
    "match_names",
    "network_of_size",
    "save_model",
]
