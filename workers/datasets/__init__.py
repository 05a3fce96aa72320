"""The data sets that attune knows: importing this package fills the registry (without torch)."""

from workers.datasets.cifar import Cifar
from workers.datasets.cifar_files import CIFAR10, CIFAR100
from workers.datasets.cluttered_digits import ClutteredDigits
from workers.datasets.digits import Digits
from workers.datasets.errors import ChangedDataError, DatasetError
from workers.datasets.folders import ImageNet
from workers.datasets.registry import DATASETS, Dataset
from workers.datasets.splits import ArraySplits, FileSplits, Split

DATASETS.add(Digits())
DATASETS.add(ClutteredDigits())
DATASETS.add(Cifar(CIFAR10))
DATASETS.add(Cifar(CIFAR100))
DATASETS.add(ImageNet())

__all__ = ["DATASETS", "ArraySplits", "ChangedDataError", "Dataset", "DatasetError", "FileSplits", "Split"]
