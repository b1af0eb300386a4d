"""The pages hang together, on the site and on a repository's web page; nothing is left out."""

import ast
import pkgutil
import re
import subprocess
import sys

import pytest

import espnetv2
from docs.commands import FENCED, PAGES, ROOT

sys.path.insert(0, str(ROOT / "tools"))
import docs_reference as reference

MORE = [ROOT / "CHANGELOG.md", ROOT / "examples/README.md", ROOT / "examples/pictures/README.md"]
LINK = re.compile(r"(?<!`)\[(?:[^]`]|`[^`]*`)*\]\(([^)\s]+)\)")


def headings(page):
    """Anchors of a page, made as repositories' web pages make them."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    plain = (title.lower() for title in re.findall(r"^#+ (.*)", text, re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", [*PAGES, *MORE], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page}: {link}"  # a folder has no page on the site
        if anchor:
            assert anchor in headings(target), f"{page}: {link}"


def test_no_page_is_an_orphan():
    index = ROOT / "docs/index.md"
    listed = LINK.findall(index.read_text(encoding="utf-8"))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert pages - {"index.md"} <= set(listed)
    contents = reference.contents_of(index.read_text(encoding="utf-8"))
    for name in pages - {"index.md"}:
        assert contents.count(f" <{name.removesuffix('.md')}>\n") == 1, f"{name} is not in the menu"


def test_the_reference_has_every_module():
    rooms = [room for room in reference.rooms() if room != "commands"]
    shown = {name for room in rooms for name in reference.modules(room)}
    found = {
        module.name
        for module in pkgutil.walk_packages(espnetv2.__path__, "espnetv2.")
        if (not module.ispkg or module.name.count(".") > 1)  # an operator's folder is shown
        and not module.name.startswith(("espnetv2.cli.", "espnetv2.__"))
        and module.name.rpartition(".")[2] not in reference.UNSHOWN
    }
    assert shown == found


def test_every_public_name_is_documented():
    """By reading; importing everything would take half a minute."""
    rooms = [room for room in reference.rooms() if room != "commands"]
    for name in (name for room in rooms for name in reference.modules(room)):
        path = (ROOT / "src").joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), name
        for node in tree.body:
            named = isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
            if named and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{name}.{node.name}"


def test_the_page_of_commands_has_every_command():
    import typer

    from espnetv2.cli.app import app

    group = typer.main.get_command(app)
    names = set()
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        names |= {f"{name} {one}" for one in inner} if inner else {name}
    assert names <= set(reference.COMMANDS)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Takes `a|b`, not a|b.", r"Takes ``a|b``, not a\|b."),
        ("The `EESP`s of x_ and **not**.", "The ``EESP``\\ s of x\\_ and \\*\\*not\\*\\*."),
        ("Text.\nPaper: ssd sec. 2,\nFig. 3.", "Text.\n\n:Paper: ssd sec. 2,\n    Fig. 3."),
        (">>> 2 * 3\n6", ">>> 2 * 3\n6"),
    ],
)
def test_docstrings_become_restructuredtext(given, expected):
    lines = given.split("\n")
    reference.tidy(None, "function", "f", None, None, lines)
    assert "\n".join(lines) == expected


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_site_is_built_without_a_warning(tmp_path):
    from sphinx.util.inventory import InventoryFile

    options = ("--fail-on-warning", "--keep-going", "--nitpicky", "--quiet")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, ROOT / "docs", tmp_path / "site"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "site/objects.inv").open("rb") as file:
        known = InventoryFile.load(file, "", lambda base, rest: rest)
    for name in ("load", "create_model", "list_models", "deploy.fold.fold", "tasks.segment.decode"):
        assert f"espnetv2.{name}" in known["py:function"]
    for name in ("layers.eesp.EESP", "training.recipe.Recipe", "predict.predictor.Predictor"):
        assert f"espnetv2.{name}" in known["py:class"]
    for page in (tmp_path / "site").rglob("*.html"):
        outside = re.findall(r'(?:src|<link[^>]* href)="(https?:[^"]+)"', page.read_text("utf-8"))
        assert outside == [], f"{page} loads {outside}"  # fonts and scripts are the site's own
