"""The command line: one short function a command, which reads options, calls the core and prints the result."""
