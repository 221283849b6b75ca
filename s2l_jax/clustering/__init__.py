"""k-means in JAX: the estimator, its streaming form, and the agreement of two clusterings."""

from s2l_jax.clustering.agreement import adjusted_rand_index
from s2l_jax.clustering.distances import DISTANCES, rescaled
from s2l_jax.clustering.kmeans import KMeans
from s2l_jax.clustering.rows import count_distinct
from s2l_jax.clustering.streaming import Refresh, StreamingKMeans

__all__ = [
    "DISTANCES",
    "KMeans",
    "Refresh",
    "StreamingKMeans",
    "adjusted_rand_index",
    "count_distinct",
    "rescaled",
]
