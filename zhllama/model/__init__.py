"""Models: grow their rows, fold what was trained into them, measure their bits."""
