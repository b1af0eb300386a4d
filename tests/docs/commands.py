"""The commands that README and docs/ show: in fenced blocks, and in backticks within text."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "native" / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md")),
]
PROGRAMS = (
    "espnetv2|torchrun|make|python3?|pip|cmake|ctest|trtexec|tensorboard|sudo|docker|npm|uv|curl"
    r"|\.venv[\w-]*/bin/\w+|build/[\w-]+"
)
START = re.compile(rf"((?:\w+=\S+ )*)({PROGRAMS})(?: (?=\S)|$)")
FENCED = re.compile(r"^```([\w{}-]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """One command of a page.

    Attributes:
        where: "bash", another language of a fenced block, or "text" for one within a sentence.
    """

    page: Path
    line: str
    where: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line)

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT).with_suffix('')}: {self.line[:60]}"


def commands_of(page: Path) -> list[Command]:
    """In the order of the page, blocks before sentences; a line that goes on is one line."""
    text = page.read_text(encoding="utf-8")
    found = []
    for language, body in FENCED.findall(text):
        for line in body.replace("\\\n", " ").splitlines():
            plain = " ".join(line.partition(" #")[0].split())
            if START.match(plain):
                found.append(Command(page, plain, language or "plain"))
    for code in re.findall(r"(?<!`)`([^`]+)`", FENCED.sub("", text)):
        plain = " ".join(code.split())
        if START.match(plain) and " " in plain:
            found.append(Command(page, plain, "text"))
    return found


def shown() -> list[Command]:
    """All of them."""
    return [command for page in PAGES for command in commands_of(page)]


def python_of(page: Path) -> str:
    """A page's pieces of Python follow one another."""
    pieces = [body for language, body in FENCED.findall(page.read_text("utf-8"))]
    languages = [language for language, _ in FENCED.findall(page.read_text("utf-8"))]
    return "\n".join(
        body for language, body in zip(languages, pieces, strict=True) if language == "python"
    )
