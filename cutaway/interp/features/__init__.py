"""Activations as sums of few learned directions: sparse autoencoders, transcoders, attribution graphs."""

from cutaway.interp.features.dashboard import Dashboard, feature_dashboard
from cutaway.interp.features.dictionary import (
    Features,
    FeaturesConfig,
    FeaturesRun,
    SparseAutoencoder,
    Transcoder,
    load_features,
)
from cutaway.interp.features.evaluate import Evaluated, Explained, evaluate_features, explain, replaced_mlps
from cutaway.interp.features.graph import AttributionGraph, attribution_graph
from cutaway.interp.features.match import Match, dimensionality, match_directions
from cutaway.interp.features.train import train_features

__all__ = [
    "AttributionGraph",
    "Dashboard",
    "Evaluated",
    "Explained",
    "Features",
    "FeaturesConfig",
    "FeaturesRun",
    "Match",
    "SparseAutoencoder",
    "Transcoder",
    "attribution_graph",
    "dimensionality",
    "evaluate_features",
    "explain",
    "feature_dashboard",
    "load_features",
    "match_directions",
    "replaced_mlps",
    "train_features",
]
