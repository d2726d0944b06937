"""Pages of the site that stand at the repository's root, too: the README is its home. A hook of mkdocs."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
KEPT = ("CITATION.cff", "LICENSE")
"""What pages link to as it is."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add them, their links turned to the site's pages."""
    for source, page in PAGES.items():
        text = re.sub(r"\]\((?:docs/)?([\w./-]+)\)", lambda match: f"]({PAGES.get(match[1], match[1])})", read(source))
        files.append(File.generated(config, page, content=text))
    for name in KEPT:
        files.append(File.generated(config, name, content=read(name)))
    return files


def read(name: str) -> str:
    """A file at the repository's root."""
    return (ROOT / name).read_text(encoding="utf-8")
