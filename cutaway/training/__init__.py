"""Logits and targets to weights: losses, optimisers, schedules, the loop, checkpoints that continue bit for bit."""

from cutaway.training.config import TrainConfig, train_config
from cutaway.training.evaluate import Score, evaluate
from cutaway.training.loop import Run, resume, train
from cutaway.training.losses import cross_entropy, mse
from cutaway.training.objectives import OBJECTIVES
from cutaway.training.optim import Optimizer, OptimizerConfig
from cutaway.training.schedule import lr_scale

__all__ = [
    "OBJECTIVES",
    "Optimizer",
    "OptimizerConfig",
    "Run",
    "Score",
    "TrainConfig",
    "cross_entropy",
    "evaluate",
    "lr_scale",
    "mse",
    "resume",
    "train",
    "train_config",
]
