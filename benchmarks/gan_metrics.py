"""What generated pictures are measured by, on features and pixels alone; nothing here knows a generator.

Rows are pictures, columns numbers; distances are Euclidean. Shares lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

NEIGHBOURS = 3
"""As in Kynkäänniemi et al. 2019: a point's ball reaches to its third neighbour."""
BLOCK = 512
COPIED_PERCENTILE = 1.0


def _distances(rows: np.ndarray, others: np.ndarray) -> Iterator[tuple[int, torch.Tensor]]:
    """(first row, distances of a block of rows to all others)."""
    right = torch.from_numpy(np.ascontiguousarray(others, dtype=np.float32))
    for start in range(0, len(rows), BLOCK):
        left = torch.from_numpy(np.ascontiguousarray(rows[start : start + BLOCK], dtype=np.float32))
        yield start, torch.cdist(left, right)


def covered(points: np.ndarray, manifold: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """Share of ``points`` that lie in the ball of at least one point of ``manifold``.

    Precision: generated points, real manifold. Recall: real points, generated manifold.
    """
    if len(manifold) <= neighbours or not len(points):
        raise ValueError(f"{len(points)} points, {len(manifold)} in the manifold: more than {neighbours} are needed")
    # The nearest point is the point itself.
    radii = torch.cat([block.kthvalue(neighbours + 1, dim=1).values for _, block in _distances(manifold, manifold)])
    inside = sum(int((block <= radii).any(1).sum()) for _, block in _distances(points, manifold))
    return inside / len(points)


def nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance of every point to the nearest of ``others``."""
    found = [block.min(1).values.numpy() for _, block in _distances(points, others)]
    return np.concatenate(found)


def memorised(generated: np.ndarray, training: np.ndarray, test: np.ndarray) -> float:
    """Share of generated rows nearer to a training row than all but 1 % of unseen real ones are: 1 % by chance."""
    usual = np.percentile(nearest(test, training), COPIED_PERCENTILE)
    return float((nearest(generated, training) < usual).mean())


def spread(points: np.ndarray, classes: np.ndarray) -> float:
    """Mean distance between two different rows of one class, the mean over the classes that have two rows."""
    found = []
    for one in np.unique(classes):
        rows = points[classes == one]
        if len(rows) > 1:
            total = sum(float(block.sum(dtype=torch.float64)) for _, block in _distances(rows, rows))
            found.append(total / (len(rows) * (len(rows) - 1)))
    if not found:
        raise ValueError("no class has two rows")
    return float(np.mean(found))


def interval(share: float, count: int) -> tuple[float, float]:
    """95 % Wilson interval of a share of ``count``."""
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return float(middle - half), float(middle + half)
