"""Text for training: sources, fetching, and a cleaning pipeline on datatrove."""

import os

os.environ.setdefault(
    "TQDM_DISABLE", "1"
)  # read when tqdm is imported: the bars of datatrove and datasets are not ours
