"""Every reader of files: the one place through which other people's data enters, and how files are written as wholes."""
