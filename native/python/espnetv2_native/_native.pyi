from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Output = NDArray[np.float32] | NDArray[np.uint8] | NDArray[np.int64]

class Model:
    """A loaded network. Safe to use from several threads at once.

    Raises:
        ValueError: One line that says what is wrong with the file.
    """

    def __init__(self, path: str) -> None: ...
    @staticmethod
    def of(content: bytes) -> Model: ...
    @property
    def channels(self) -> int: ...
    @property
    def instruction_set(self) -> str:
        """That its kernels are compiled for: see `espnetv2_instruction_set_of` in `espnetv2.h`."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) that it was exported for; zeros where it names none."""

    def metadata(self, key: str) -> str | None: ...
    def prepare(self, rgb: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
        """Resize and normalise a picture as the file's header says.

        Shape: (H, W, 3) -> (3, height, width)

        Raises:
            ValueError: The header does not say how, or it is no such picture.
        """

    def paint(self, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The colour of each class.

        Shape: any -> (..., 3)

        Raises:
            ValueError: The header holds no palette.
        """

    def open(self, batch: int, height: int, width: int, threads: int = 1) -> Context: ...

class Context:
    """A model at one size; for one call at a time."""

    @property
    def names(self) -> list[str]: ...
    @property
    def arena_bytes(self) -> int: ...
    def run(self, image: NDArray[np.float32]) -> list[Output]: ...
    def see(self, rgb: NDArray[np.uint8]) -> list[Output]:
        """Prepare one picture (H, W, 3) and run; for a context of batch 1.

        Raises:
            ValueError: As `Model.prepare`, or the batch is another.
        """

    def profile(self, image: NDArray[np.float32]) -> Sequence[tuple[str, float]]: ...

def instruction_set() -> str: ...
def peak(seconds: float) -> float: ...
def version() -> str: ...
