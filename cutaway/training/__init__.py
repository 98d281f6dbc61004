"""Logits and targets to weights: losses, optimisers, schedules, the loop, checkpoints that continue bit for bit."""

from cutaway.training.config import TrainConfig, train_config
from cutaway.training.evaluate import Score, evaluate
from cutaway.training.loop import Run, resume, train
from cutaway.training.losses import cross_entropy, mse
from cutaway.training.objectives import OBJECTIVES
from cutaway.training.optim import Optimizer, OptimizerConfig
from cutaway.training.order import Order, suggest_order
from cutaway.training.schedule import lr_scale
from cutaway.training.trainings import Trainings
from cutaway.training.watching import Training

__all__ = [
    "OBJECTIVES",
    "Optimizer",
    "OptimizerConfig",
    "Order",
    "Run",
    "Score",
    "TrainConfig",
    "Training",
    "Trainings",
    "cross_entropy",
    "evaluate",
    "lr_scale",
    "mse",
    "resume",
    "suggest_order",
    "train",
    "train_config",
]
