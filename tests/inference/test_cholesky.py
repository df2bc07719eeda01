import pytest
import torch

from pluralign.inference.cholesky import factor_, solve, whiten_


def make_matrices(rows: int, dtype: torch.dtype) -> torch.Tensor:
    half = torch.randn(3, rows, 2 * rows, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return half @ half.mT / rows + torch.eye(rows, dtype=dtype)


@pytest.mark.parametrize("rows", [1, 47, 48, 130])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_factors_solve_and_whiten(rows, dtype):
    matrix = make_matrices(rows, dtype)
    right = torch.randn(3, rows, 7, generator=torch.Generator().manual_seed(1), dtype=dtype)
    close = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 1e-10, "rtol": 1e-10}
    factor = factor_(matrix.clone())
    torch.testing.assert_close(factor.triu().mT @ factor.triu(), matrix, **close)
    torch.testing.assert_close(matrix @ solve(factor, right[..., 0])[..., None], right[..., :1], **close)
    half = whiten_(factor, right.clone())
    torch.testing.assert_close(half.mT @ half, right.mT @ torch.linalg.solve(matrix, right), **close)


def test_memory_is_taken_and_not_copied_where_matrices_are_large():
    matrix = make_matrices(60, torch.float64)
    right = torch.ones(3, 60, 2, dtype=torch.float64)
    assert factor_(matrix) is matrix
    assert whiten_(matrix, right) is right


@pytest.mark.parametrize("rows", [3, 60])
def test_a_matrix_that_is_not_positive_definite_is_refused(rows):
    matrix = make_matrices(rows, torch.float64)
    matrix[1, 0, 0] = -1.0
    with pytest.raises(torch.linalg.LinAlgError, match="positive"):
        factor_(matrix)
