"""Text for training: sources, fetching, and a cleaning pipeline on datatrove."""

import os

# tqdm reads it on import: this hides the progress bars of datatrove and datasets.
os.environ.setdefault("TQDM_DISABLE", "1")
