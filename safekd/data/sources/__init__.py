"""Data that are read as they are needed: datasets with random access, and streams of batches.

    DatasetSource("train", dataset, collate=pad)    # anything with a length and items; read in any order
    StreamSource("train", loader)                   # a DataLoader, a list of batches, a function that opens a stream
    as_source(data, "train")                        # what ``fit`` takes: a Split where data are small

The first pass over a source surveys it (``SurveyedSource``): how many examples and positions there are, and which.
"""

from ._as_source import as_source
from ._dataset_source import DatasetSource
from ._stream_source import StreamSource
from ._surveyed_source import SurveyedSource

__all__ = ["DatasetSource", "StreamSource", "SurveyedSource", "as_source"]
