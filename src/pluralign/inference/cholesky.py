"""Cholesky factors of many matrices of some hundred rows, as upper triangles: U' U = A.

On the CPU LAPACK is called once a matrix, by way of scipy: at 100 rows and above its OpenBLAS takes a third of the time
of torch's batched calls, beside which the loop is nothing. Of a factor only the upper triangle means anything.
"""

import torch
from jaxtyping import Float
from scipy.linalg import get_blas_funcs, get_lapack_funcs
from torch import Tensor

_LOOP_ROWS = 48  # smaller matrices are factored faster in one call of torch's


def _in_loop(matrix: Tensor) -> bool:
    return matrix.device.type == "cpu" and matrix.is_contiguous() and matrix.shape[-1] >= _LOOP_ROWS


def factor_(matrix: Float[Tensor, "block rows rows"]) -> Float[Tensor, "block rows rows"]:
    """Factor symmetric positive definite matrices, whose memory is taken.

    Raises:
        LinAlgError: A matrix is not positive definite.
    """
    if not _in_loop(matrix):
        return torch.linalg.cholesky(matrix, upper=True)
    arrays = matrix.numpy()
    (potrf,) = get_lapack_funcs(("potrf",), (arrays,))
    for i, each in enumerate(arrays):
        # The transpose of a row-major matrix is column-major, so that nothing is copied and its lower triangle is ours.
        if potrf(each.T, lower=True, clean=False, overwrite_a=True)[1]:
            raise torch.linalg.LinAlgError(  # type: ignore[attr-defined]
                f"matrix {i} of {len(matrix)} is not positive definite"
            )
    return matrix


def solve(factor: Float[Tensor, "block rows rows"], right: Float[Tensor, "block rows"]) -> Float[Tensor, "block rows"]:
    """A^-1 b."""
    half = torch.linalg.solve_triangular(factor.mT, right[..., None], upper=False)
    return torch.linalg.solve_triangular(factor, half, upper=True)[..., 0]


def whiten_(
    factor: Float[Tensor, "block rows rows"], right: Float[Tensor, "block rows width"]
) -> Float[Tensor, "block rows width"]:
    """U'^-1 B, whose square is B' A^-1 B; the memory of B is taken."""
    if not (_in_loop(factor) and right.is_contiguous()):
        return torch.linalg.solve_triangular(factor.mT, right, upper=False)
    arrays = right.numpy()
    (trsm,) = get_blas_funcs(("trsm",), (arrays,))
    for upper, each in zip(factor.numpy(), arrays, strict=True):
        trsm(1.0, upper.T, each.T, side=True, lower=True, trans_a=True, overwrite_b=True)
    return right
