"""The command line: one short function per command, which reads options, calls the core and prints the result."""
