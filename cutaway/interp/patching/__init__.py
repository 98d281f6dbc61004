"""What happens when activations are replaced by those of another run."""

from cutaway.interp.patching.attribution import Attributed, attribution_patching
from cutaway.interp.patching.circuit import Circuit, CircuitEdge, circuit
from cutaway.interp.patching.maps import PatchedSite, PatchMap, patch_map, patch_site
from cutaway.interp.patching.pairing import Pairing, pairing
from cutaway.interp.patching.patch import Patched, patch
from cutaway.interp.patching.path import path_patching
from cutaway.interp.patching.site import Site
from cutaway.interp.patching.sweep import Sweep, ablate, patch_sweep
from cutaway.interp.patching.trace import causal_trace

__all__ = [
    "Attributed",
    "Circuit",
    "CircuitEdge",
    "Pairing",
    "PatchMap",
    "Patched",
    "PatchedSite",
    "Site",
    "Sweep",
    "ablate",
    "attribution_patching",
    "causal_trace",
    "circuit",
    "pairing",
    "patch",
    "patch_map",
    "patch_site",
    "patch_sweep",
    "path_patching",
]
