"""The errors that users can fix, each reported in one line: place, problem and remedy."""

from typing import Any


class ZhllamaError(Exception):
    """A fault in the input or the environment; the command line prints it as one line and exits with 1."""

    def __init__(self, where: object, what: str, remedy: str = "") -> None:
        self.where, self.what, self.remedy = str(where), what, remedy
        super().__init__(self.text())

    def text(self) -> str:
        """Where, what and the remedy as one line."""
        return f"{self.where}: {self.what}." + (f" {self.remedy}." if self.remedy else "")

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is built again from its message alone, and a pool waits forever for one that fails at it.
        return _rebuild, (type(self), self.args), self.__dict__


def _rebuild(kind: type[ZhllamaError], arguments: tuple[Any, ...]) -> ZhllamaError:
    return kind.__new__(kind, *arguments)


class InputError(ZhllamaError):
    """An input file, text or model is missing, broken or of the wrong kind."""


class DamagedFile(InputError):
    """A compressed or Parquet file is corrupt from some point on; the data before it was read."""


class OptionError(ZhllamaError):
    """An option, or a combination of options, is invalid."""


class OutputError(ZhllamaError):
    """The output folder is in use, locked, full or not writable."""


class MissingPackage(ZhllamaError):
    """Optional packages are missing, named with commas between them; the remedy is the command that installs their extras here."""

    def __init__(self, what: str, packages: str, *extras: str) -> None:
        from zhllama.extras import install_command

        super().__init__(
            what, f"needs the package{'s' * (', ' in packages)} {packages}", install_command(*extras)
        )


class BrokenPromise(ZhllamaError):
    """A proof failed: the output does not fulfill what its recipe promises."""
