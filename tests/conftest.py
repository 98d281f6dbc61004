"""Under tests every annotated shape and dtype of the package is checked as it runs (jaxtyping with beartype)."""

from jaxtyping import install_import_hook

# models.model is left out: what it is given is the user's, and its own sentences for wrong input are tested
CHECKED = [
    "cutaway.generation.sampling",
    "cutaway.interp.attention.patterns",
    "cutaway.interp.ledger.ledger",
    "cutaway.interp.inputs",
    "cutaway.interp.lenses.logit",
    "cutaway.interp.look",
    "cutaway.interp.record",
    "cutaway.interp.results",
    "cutaway.interp.target",
    "cutaway.interp.text.surprisal",
    "cutaway.interp.ledger.numbers",
    "cutaway.interp.ledger.reading",
    "cutaway.models.attention",
    "cutaway.models.cache",
    "cutaway.models.decoder",
    "cutaway.models.encoder",
    "cutaway.models.experts",
    "cutaway.models.fused",
    "cutaway.models.gru",
    "cutaway.models.heads",
    "cutaway.models.layers",
    "cutaway.models.ngram",
    "cutaway.models.quantised",
    "cutaway.models.rotary",
    "cutaway.models.seq2seq",
    "cutaway.models.seq2seq_layers",
    "cutaway.models.sight",
    "cutaway.text.audio",
    "cutaway.tokenizers.order",
    "cutaway.tokenizers.store",
    "cutaway.tokenizers.words",
    "cutaway.training.losses",
    "cutaway.training.objectives.masked",
    "cutaway.training.objectives.replaced",
    "cutaway.training.objectives.spans",
    "cutaway.training.optim",
]
# an int may stand where a float is asked for, as for pyright
install_import_hook(CHECKED, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
