"""What the site shows from outside docs/: pages at the repository's root, the README as its home, and the pictures of
results/. A hook of mkdocs."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
KEPT = ("CITATION.cff", "LICENSE")
"""What pages link to as it is."""
PICTURES = ("results/*/*/grid.png", "results/*/*/grid.jpg", "results/*/*.svg", "results/*/*.png")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add them, their links turned to the site's pages."""
    for source, page in PAGES.items():
        text = re.sub(r"\]\((?:docs/)?([\w./-]+)(#[\w-]+)?\)", _turned, read(source))
        files.append(File.generated(config, page, content=text))
    for name in KEPT:
        files.append(File.generated(config, name, content=read(name)))
    for path in (path for pattern in PICTURES for path in ROOT.glob(pattern)):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links to those pictures, which lead out of docs/ in the repository, lead to their copies on the site."""
    return markdown.replace("](../results/", "](results/")


def _turned(link: re.Match[str]) -> str:
    """A link of a page at the root, as the site has it."""
    return f"]({PAGES.get(link[1], link[1])}{link[2] or ''})"


def read(name: str) -> str:
    """A file at the repository's root."""
    return (ROOT / name).read_text(encoding="utf-8")
