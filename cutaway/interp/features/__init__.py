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
from cutaway.interp.features.intervene import Intervened, graph_intervention
from cutaway.interp.features.match import Match, dimensionality, match_directions
from cutaway.interp.features.overview import feature_overview
from cutaway.interp.features.stored import StoredFeatures, open_features, stored_features
from cutaway.interp.features.train import train_features

__all__ = [
    "AttributionGraph",
    "Dashboard",
    "Evaluated",
    "Explained",
    "Features",
    "FeaturesConfig",
    "FeaturesRun",
    "Intervened",
    "Match",
    "SparseAutoencoder",
    "StoredFeatures",
    "Transcoder",
    "attribution_graph",
    "dimensionality",
    "evaluate_features",
    "explain",
    "feature_dashboard",
    "feature_overview",
    "graph_intervention",
    "load_features",
    "match_directions",
    "open_features",
    "replaced_mlps",
    "stored_features",
    "train_features",
]
