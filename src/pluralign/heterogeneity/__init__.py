"""Is there any heterogeneity, of what kind, and would it show?"""

from pluralign.heterogeneity.score_tests import ScoreTest, Tests, score_tests

__all__ = ["ScoreTest", "Tests", "score_tests"]
