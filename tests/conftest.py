"""Under tests every annotated shape and dtype of the package is checked as it runs (jaxtyping with beartype)."""

from jaxtyping import install_import_hook

# models.model and interp name types that they import for the type checker alone
CHECKED = [
    "cutaway.generation.sampling",
    "cutaway.models.cache",
    "cutaway.models.decoder",
    "cutaway.models.encoder",
    "cutaway.models.experts",
    "cutaway.models.fused",
    "cutaway.models.gru",
    "cutaway.models.heads",
    "cutaway.models.layers",
    "cutaway.models.rotary",
    "cutaway.models.sight",
    "cutaway.training.losses",
    "cutaway.training.optim",
]
install_import_hook(CHECKED, "beartype.beartype")
