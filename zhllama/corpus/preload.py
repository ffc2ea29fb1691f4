"""Imports for the fork server of the local executor, done once for all workers (see `executors`)."""

import os

import charset_normalizer  # noqa: F401
import orjson  # noqa: F401

import zhllama.corpus.clean  # noqa: F401  so that workers need not import it
from zhllama.corpus import workers

workers.quiet()
workers.follow(os.getppid())
