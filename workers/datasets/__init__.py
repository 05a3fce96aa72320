"""The data sets that attune brings along: importing this package fills the registry (without torch)."""

from workers.datasets.cluttered_digits import ClutteredDigits
from workers.datasets.digits import Digits
from workers.datasets.registry import DATASETS, ArraySplits, Dataset, DatasetError, Split

DATASETS.add(Digits())
DATASETS.add(ClutteredDigits())

__all__ = ["DATASETS", "ArraySplits", "Dataset", "DatasetError", "Split"]
