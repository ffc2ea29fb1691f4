"""zhllama, with accelerate taking processes over gloo for those of GPUs, the only ones that it cuts parameters up over."""

from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType

from zhllama.cli import main

made = PartialState.__init__


def taken_for_gpus(self: Any, *given: Any, **named: Any) -> None:
    made(self, *given, **named)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


if __name__ == "__main__":
    PartialState.__init__ = taken_for_gpus
    main()
