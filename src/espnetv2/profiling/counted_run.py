"""One case of a benchmark, warm, with one call between the profiler's marks.

`python -m espnetv2.profiling.counted_run '{"model": "espnetv2_s2_0", ...}'` is what `ncu` runs.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from espnetv2.errors import UserError
from espnetv2.profiling.benchmark import open_case
from espnetv2.profiling.case import case_of


def main(text: str) -> None:
    """Run the case that the JSON names.

    Raises:
        UserError: It cannot be opened, or there is no GPU.
    """
    call = open_case(case_of(json.loads(text)))
    for _ in range(3):
        call()
    if not torch.cuda.is_available():
        raise UserError("there is no GPU here whose kernels could be counted")
    marks: Any = torch.cuda.profiler
    torch.cuda.synchronize()
    marks.start()
    call()
    torch.cuda.synchronize()
    marks.stop()


if __name__ == "__main__":
    main(sys.argv[1])
