"""The errors that users can fix, each reported in one line: place, problem and remedy."""


class ZhllamaError(Exception):
    """A fault in the input or the environment; the command line prints it as one line and exits with 1."""

    def __init__(self, where: object, what: str, remedy: str = "") -> None:
        self.where, self.what, self.remedy = str(where), what, remedy
        super().__init__(f"{where}: {what}." + (f" {remedy}." if remedy else ""))


class InputError(ZhllamaError):
    """An input file, text or model is missing, broken or of the wrong kind."""


class DamagedFile(InputError):
    """A compressed or Parquet file is corrupt from some point on; the data before it was read."""


class OptionError(ZhllamaError):
    """An option, or a combination of options, is invalid."""


class OutputError(ZhllamaError):
    """The output folder is in use, locked, full or not writable."""


class MissingPackage(ZhllamaError):
    """An optional package is missing; the remedy names the extra that installs it."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(what, f"needs the package {package}", f"pip install 'zhllama[{extra}]'")


class BrokenPromise(ZhllamaError):
    """A proof failed: the output does not fulfill what its recipe promises."""
