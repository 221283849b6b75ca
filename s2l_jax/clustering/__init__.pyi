from .agreement import adjusted_rand_index, adjusted_rand_within
from .cluster_count import ClusterCount, compare_cluster_counts, silhouette
from .distances import DISTANCES, check_distance, rescaled
from .kmeans import KMeans, fit_sharing_programs
from .rows import count_distinct
from .streaming import Refresh, StreamingKMeans

__all__ = [
    "DISTANCES",
    "ClusterCount",
    "KMeans",
    "Refresh",
    "StreamingKMeans",
    "adjusted_rand_index",
    "adjusted_rand_within",
    "check_distance",
    "compare_cluster_counts",
    "count_distinct",
    "fit_sharing_programs",
    "rescaled",
    "silhouette",
]
