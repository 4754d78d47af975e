"""Data sets as reproducible batches: the same numbers for every backend, worker count and resumed run."""

from twinspike_training.data.batch import Batch
from twinspike_training.data.config import DataConfig
from twinspike_training.data.dataset import Dataset, open_dataset

__all__ = ["Batch", "DataConfig", "Dataset", "open_dataset"]
