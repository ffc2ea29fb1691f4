"""The parts of scripts/experiments/extend_or_not.py."""
