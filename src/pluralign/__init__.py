"""Learn what each person prefers, rather than what people prefer on average, from pairwise choices.

>>> comparisons = pluralign.load("simulated")
>>> study = pluralign.study(comparisons, seeds=2)
>>> fit = pluralign.fit(comparisons, users="cluster", clusters=3, soft=True)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pluralign.policies.policy import Policy
    from pluralign.reports.page import write_report
    from pluralign.reports.study import study
    from pluralign.rewards.linear import LinearReward
    from pluralign.rewards.transformer import TransformerReward
    from pluralign.scans.scan import scan
    from pluralign.studies.data import load
    from pluralign.studies.fitting import fit
    from pluralign.training.train import train_policy, train_reward

__version__ = "0.1.0"
__all__ = [
    "LinearReward",
    "Policy",
    "TransformerReward",
    "__version__",
    "fit",
    "load",
    "scan",
    "study",
    "train_policy",
    "train_reward",
    "write_report",
]

# Found when first asked for, so that `import pluralign` does not wait for torch.
_HOME = {
    "LinearReward": "pluralign.rewards.linear",
    "Policy": "pluralign.policies.policy",
    "TransformerReward": "pluralign.rewards.transformer",
    "fit": "pluralign.studies.fitting",
    "load": "pluralign.studies.data",
    "scan": "pluralign.scans.scan",
    "study": "pluralign.reports.study",
    "train_policy": "pluralign.training.train",
    "train_reward": "pluralign.training.train",
    "write_report": "pluralign.reports.page",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    # `pluralign.studies` is a folder as well: importing it would put the folder in the function's place.
    globals()[name] = value = getattr(import_module(_HOME[name]), name)
    return value
