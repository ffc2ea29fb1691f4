"""Reading and writing of files: the only way in for foreign data, and atomic writes."""
