"""Folders import only from lower ranks, so that a reader can start at the bottom."""

import ast
from pathlib import Path

RANKS = [
    ["errors", "types", "files"],
    ["comparisons", "likelihoods"],
    ["datasets", "features", "evaluation"],
    ["users"],
    ["language_models"],
    ["rewards", "populations", "inference"],
    ["heterogeneity", "scans", "queries", "training"],
    ["policies", "control"],
    ["studies"],
    ["reports", "serving"],
    ["cli"],
]
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
PACKAGE = Path(__file__).parents[1] / "src" / "pluralign"


def imports(path: Path) -> set[str]:
    """Names of the folders of `pluralign` that a module imports from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("pluralign.")}
    return found


def test_every_import_goes_down():
    climbing = []
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own in ("__init__", "__main__"):
            continue
        climbing += [
            f"{path.relative_to(PACKAGE)} ({own}) imports {other}"
            for other in imports(path)
            if other != own and RANK[other] >= RANK[own]
        ]
    assert not climbing
