"""The entry point of the `zhllama` command and of `python -m zhllama`."""

from zhllama.safe_path import quiet_interrupt


def main() -> None:
    """Load the command line and run it; Ctrl-C while it loads ends the process without a traceback."""
    quiet_interrupt()
    from zhllama.cli import main as run

    run()


if __name__ == "__main__":
    main()
