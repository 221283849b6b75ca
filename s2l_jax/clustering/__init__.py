"""k-means in JAX: the estimator, its streaming form, and how clusterings compare."""

from s2l_jax.clustering.agreement import adjusted_rand_index
from s2l_jax.clustering.cluster_count import ClusterCount, compare_cluster_counts, silhouette
from s2l_jax.clustering.distances import DISTANCES, check_distance, rescaled
from s2l_jax.clustering.kmeans import KMeans, fit_sharing_programs
from s2l_jax.clustering.rows import count_distinct
from s2l_jax.clustering.streaming import Refresh, StreamingKMeans

__all__ = [
    "DISTANCES",
    "ClusterCount",
    "KMeans",
    "Refresh",
    "StreamingKMeans",
    "adjusted_rand_index",
    "check_distance",
    "compare_cluster_counts",
    "count_distinct",
    "fit_sharing_programs",
    "rescaled",
    "silhouette",
]
