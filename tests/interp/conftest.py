import pytest
import torch

from cutaway.models import Decoder, DecoderConfig, Model, Recurrent, RecurrentConfig
from cutaway.tokenizers import Tokenizer, train_tokenizer

TEXT = "the cat sat"
CHINESE = "你好吗\n<b>"


def with_noise(network: torch.nn.Module) -> torch.nn.Module:
    """A fresh network writes nothing: its output matrices are zero."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return network.eval()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer([(TEXT + CHINESE) * 5], "char", 300)


@pytest.fixture
def model(tokenizer: Tokenizer) -> Model:
    torch.manual_seed(0)
    network = Decoder(DecoderConfig(tokenizer.vocab_size, context=64, layers=3, width=32, heads=4, kv_heads=2))
    with_noise(network)
    return Model(network, tokenizer, "a test")


@pytest.fixture
def recurrent(tokenizer: Tokenizer) -> Model:
    torch.manual_seed(0)
    network = Recurrent(RecurrentConfig(tokenizer.vocab_size, layers=2, width=8, hidden=20))
    with_noise(network)
    return Model(network, tokenizer, "a test")
