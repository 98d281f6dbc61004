"""A receipt: a model's numbers beside those that transformers computes from the same files."""

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cutaway.errors import need
from cutaway.files import read_json

TARGET = 32  # most tokens of an encoder–decoder's target
SAMPLE = "The capital of France is Paris. 你好，世界。 def main(): return 42"


@dataclass(frozen=True)
class Parity:
    """How far apart two implementations are on one text.

    Attributes:
        model: what was compared.
        family: as which transformers has read it.
        architecture: with which of its classes.
        tokens: of the text.
        difference: the largest between two outputs: logits, or states where there is no head.
        scale: the largest output, to compare that with.
        choices: how many positions, or texts, an output is made for.
        same_choice: at how many of them both find the same one likeliest.
        versions: of both.
    """

    model: str
    family: str
    architecture: str
    tokens: int
    difference: float
    scale: float
    choices: int
    same_choice: int
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def parity(source: str | Path, text: str = SAMPLE) -> Parity:
    """Compare a model with transformers' reading of it, in float32.

    It is written as the family that can express it, and read from there. Of an encoder–decoder the text is source and
    target; one that listens hears noise.

    Args:
        source: what `load_model` takes.
        text: what both read.

    Raises:
        ConfigError: no published family can express the model.
        MissingExtra: transformers is not installed.
    """
    transformers = need("transformers", "parity", "comparing with transformers")
    import torch  # late, as `cutaway doctor --help` should not wait for it

    from cutaway import __version__
    from cutaway.models import Decoder, Encoder, Seq2Seq, load_model, save_model

    model = load_model(source, dtype=torch.float32)
    with TemporaryDirectory() as folder:
        written = save_model(model, Path(folder) / "model", "huggingface")
        architecture = read_json(written / "config.json")["architectures"][0]
        if getattr(model.config, "head", "") == "embedding":  # whose config may name what it was before
            architecture = "AutoModel"
        peer = getattr(transformers, architecture).from_pretrained(
            written, dtype=torch.float32, trust_remote_code=False, local_files_only=True
        )
    ids = model.ids(text)[:, : model.config.context]
    given, source_ids = {"input_ids": ids}, None
    if isinstance(model.network, Seq2Seq):
        ids, source_ids = ids[:, :TARGET], _source(model, text)
        given = {"decoder_input_ids": ids, "input_features" if model.mel else "input_ids": source_ids}
    with torch.no_grad():
        found = peer.eval()(**given)
        if "start_logits" in found:
            theirs = torch.stack((found.start_logits, found.end_logits), dim=-1)
        else:
            theirs = next(found[name] for name in ("logits", "prediction_logits", "last_hidden_state") if name in found)
        if "last_hidden_state" in found and isinstance(model.network, Decoder | Encoder):  # beneath the pooling
            ours = model.network.finish(model.network.stream(ids))
        else:
            ours = model.logits(ids, source=source_ids)
    # one logit a position says yes or no
    pairs = [output[..., None] if output.shape == ids.shape else output for output in (ours, theirs)]
    first, second = (output[..., 0] > 0 if output.shape[-1] == 1 else output.argmax(-1) for output in pairs)
    return Parity(
        model=str(source),
        family=peer.config.model_type,
        architecture=type(peer).__name__,
        tokens=ids.shape[1],
        difference=float((ours - theirs).abs().max()),
        scale=float(theirs.abs().max()),
        choices=first.numel(),
        same_choice=int((first == second).sum()),
        versions={"cutaway": __version__, "transformers": transformers.__version__},
    )


def _source(model: Any, text: str) -> Any:
    """What an encoder–decoder reads: the text, or noise in all frames that it can hear."""
    import torch

    if model.mel is None:
        return model.source_ids(text)[:, : model.config.source_context]
    frames = 2 * model.config.source_context
    return torch.randn(1, model.config.mel_bins, frames, generator=torch.Generator().manual_seed(0))
