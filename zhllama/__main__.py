"""`python -m zhllama` is the `zhllama` command."""

from zhllama.cli import main

main()
