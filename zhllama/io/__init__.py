"""Reading of foreign files, each checked and with errors that name the file, and atomic writing."""
