"""A script that runs llama.cpp's converter without its vocabulary part, which zhllama writes itself.

    PYTHON converter_runner.py CONVERT_HF_TO_GGUF.PY ARGUMENTS OF IT ...

It imports nothing of zhllama, because PYTHON may be an interpreter without it. The converter recognizes a pre-tokenizer by the
ids of one text, so it refuses every vocabulary that was extended.
"""

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

ANOTHER = 65  # exit code for a file that is not the converter


def main() -> None:
    """Load the converter as a module, and run its `main` with models that write no vocabulary."""
    path = Path(sys.argv[1])
    sys.argv = sys.argv[1:]
    # Modules of llama.cpp lie beside the converter, and those beside this script are none of its business.
    here = Path(__file__).parent
    sys.path = [str(path.parent), *(entry for entry in sys.path if not entry or Path(entry) != here)]
    loader = SourceFileLoader("convert_hf_to_gguf", str(path))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    converter = module_from_spec(spec)
    sys.modules[loader.name] = converter
    try:
        loader.exec_module(converter)
    except Exception as error:  # of any kind, in any program
        _stop(f"cannot be loaded ({type(error).__name__}: {error})")
    models: Any = getattr(converter, "ModelBase", None)
    if models is None or not callable(getattr(converter, "main", None)):
        _stop("is not llama.cpp's converter, or one from before mid-2025")
    initialize = models.__init__

    def without_vocabulary(self: Any, *arguments: Any, **named: Any) -> None:
        initialize(self, *arguments, **named)
        self.set_vocab = lambda: None

    models.__init__ = without_vocabulary
    converter.main()


def _stop(reason: str) -> None:
    print(" ".join(reason.split()), file=sys.stderr)
    sys.exit(ANOTHER)


if __name__ == "__main__":
    main()
