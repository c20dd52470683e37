"""All mutants, in one list: `./dev sim --mutants` tries them from the first seed on, the tests from a known one on."""

from __future__ import annotations

from pvc.sim.mutants_cluster import CLUSTER_MUTANTS
from pvc.sim.mutants_log import LOG_MUTANTS
from pvc.sim.mutants_node import NODE_MUTANTS
from pvc.sim.mutation import Mutant

MUTANTS: tuple[Mutant, ...] = (*LOG_MUTANTS, *NODE_MUTANTS, *CLUSTER_MUTANTS)
