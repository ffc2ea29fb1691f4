"""What a user can do something about, told in one line: where, what, and the remedy."""


class ZhllamaError(Exception):
    """The user's input or the world is at fault; the command line prints it as one line and exits with 1."""

    def __init__(self, where: object, what: str, remedy: str = "") -> None:
        self.where, self.what, self.remedy = str(where), what, remedy
        super().__init__(self.text())

    def text(self) -> str:
        """Where, what and the remedy as one line."""
        return f"{self.where}: {self.what}." + (f" {self.remedy}." if self.remedy else "")


class InputError(ZhllamaError):
    """A file, text or model that was given is missing, broken or of the wrong kind."""


class DamagedFile(InputError):
    """The bytes of a packed file or of Parquet are not what a writer wrote; what came before them was read."""


class OptionError(ZhllamaError):
    """An option, or two of them together, make no sense."""


class OutputError(ZhllamaError):
    """The output folder is taken, locked, full or not writable."""


class MissingPackage(ZhllamaError):
    """An optional package is needed; the remedy names the extra that brings it."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(what, f"needs the package {package}", f"pip install 'zhllama[{extra}]'")


class BrokenPromise(ZhllamaError):
    """A proof failed: the product is not what its recipe promises."""
