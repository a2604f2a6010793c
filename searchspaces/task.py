"""What a search space must know about a task: the shape of its images and the number of its classes."""

from dataclasses import dataclass

from searchspaces.errors import TaskError


@dataclass(frozen=True)
class Task:
    """Input and output sizes of a classification task.

    Attributes:
        name: What the task is called in studies, tables and reports.
        input_shape: Channels, height and width of one image.
        classes: Number of classes.
        scale: The scale at which search spaces build networks for this task unless told otherwise:
            ``full`` as published, ``small`` for images of a few pixels.
    """

    name: str
    input_shape: tuple[int, int, int]
    classes: int
    scale: str = "full"

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", tuple(int(side) for side in self.input_shape))
        if len(self.input_shape) != 3 or min(self.input_shape) < 1 or self.classes < 2:
            raise TaskError(
                "A task needs an input shape of three positive sizes (channels, height, width) and at least two "
                f"classes, but {self.name!r} has {self.input_shape=} and {self.classes=}."
            )
