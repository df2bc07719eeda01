"""Is there any heterogeneity, of what kind, and would it show?"""

from pluralign.heterogeneity.ceiling import Ceiling, noise_ceiling
from pluralign.heterogeneity.components import Components, components
from pluralign.heterogeneity.power import Power, needed, power_of
from pluralign.heterogeneity.score_tests import ScoreTest, Tests, score_tests

__all__ = [
    "Ceiling",
    "Components",
    "Power",
    "ScoreTest",
    "Tests",
    "components",
    "needed",
    "noise_ceiling",
    "power_of",
    "score_tests",
]
