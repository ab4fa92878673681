"""Principal components against the singular value decomposition."""

from __future__ import annotations

import numpy as np

from aya_jax.selection.principal import principal


def test_coordinates_are_those_of_the_singular_value_decomposition():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((40, 6)).astype(np.float32) * np.array([5, 4, 3, 2, 1, 0.5], np.float32) + 7
    found = principal(vectors, 3)
    left, values, _ = np.linalg.svd(vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64), full_matrices=False)
    np.testing.assert_allclose(np.abs(found(vectors)), np.abs(left[:, :3] * values[:3]), atol=1e-6)
    assert np.all(found.directions[np.argmax(np.abs(found.directions), axis=0), range(3)] > 0)
    assert principal(vectors, 99).directions.shape == (6, 6)
