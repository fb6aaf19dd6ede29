"""What a deliberate one-line fault is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """One text of a file in the place of another, which is there exactly once.

    Attributes:
        file: its path in the package.
        old: the text.
        new: what stands there instead.
        tests: test files, some of which should notice it; the quickest first.
        same: why none can, where it is the same program.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    same: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.old.strip()!r} -> {self.new.strip()!r}"


def of(file: str, tests: str, *edits: tuple[str, ...]) -> list[Edit]:
    """The edits of a file: old, new and, for some, why it is the same."""
    return [Edit(file, old, new, tuple(tests.split()), *rest) for old, new, *rest in edits]
