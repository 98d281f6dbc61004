"""A receipt: a model's numbers beside those that transformers computes from the same files."""

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cutaway.errors import ConfigError, need

SAMPLE = "The capital of France is Paris. 你好，世界。 def main(): return 42"


@dataclass(frozen=True)
class Parity:
    """How far apart two implementations are on one text.

    Attributes:
        model: what was compared.
        family: as which transformers has read it.
        tokens: of the text.
        difference: the largest between two logits.
        scale: the largest logit, to compare that with.
        same_choice: at how many positions both find the same token likeliest.
        versions: of both.
    """

    model: str
    family: str
    tokens: int
    difference: float
    scale: float
    same_choice: int
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def parity(source: str | Path, text: str = SAMPLE) -> Parity:
    """Compare a decoder with transformers' reading of it, in float32.

    A model in Cutaway's own format is first written as the family that can express it.

    Args:
        source: what `load_model` takes.
        text: what both read.

    Raises:
        ConfigError: the model is no decoder, or no published family can express it.
        MissingExtra: transformers is not installed.
    """
    transformers = need("transformers", "parity", "comparing with transformers")
    import torch  # late, as `cutaway doctor --help` should not wait for it

    from cutaway import __version__
    from cutaway.models import Decoder, load_model, save_model

    model = load_model(source, dtype=torch.float32)
    if not isinstance(model.network, Decoder):
        raise ConfigError(f"{source} is a {model.config.kind} network; only decoders are compared so far")
    with TemporaryDirectory() as folder:
        written = save_model(model, Path(folder) / "model", "huggingface")
        peer = transformers.AutoModelForCausalLM.from_pretrained(
            written, dtype=torch.float32, trust_remote_code=False, local_files_only=True
        ).eval()
        ids = model.ids(text)[:, : model.config.context]
        with torch.no_grad():
            theirs = peer(ids).logits
    ours = model.logits(ids)
    return Parity(
        model=str(source),
        family=peer.config.model_type,
        tokens=ids.shape[1],
        difference=float((ours - theirs).abs().max()),
        scale=float(theirs.abs().max()),
        same_choice=int((ours.argmax(-1) == theirs.argmax(-1)).sum()),
        versions={"cutaway": __version__, "transformers": transformers.__version__},
    )
