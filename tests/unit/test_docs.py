"""The documents: links lead somewhere, commands exist, samples are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pepperbus.cli import cli
from pepperbus.config.load import load

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")
_COMMAND = re.compile(r"`?pepperbus (?:--json |-c \S+ )?([a-z][a-z-]*)\b")
_PATH = re.compile(r"`((?:scripts|etc|docs|tests|pepperbus|sdk)/[\w./-]+)`")


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [link for link in _LINK.findall(text) if not (page.parent / link).exists()]
    missing += [path for path in _PATH.findall(text) if not (ROOT / path).exists()]
    assert missing == []


def commands() -> set[str]:
    return set(cli.list_commands(None))  # type: ignore[arg-type]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_command_exists(page: Path) -> None:
    code = re.findall(r"```sh\n(.*?)```|`(pepperbus [^`]+)`", page.read_text(encoding="utf-8"), re.DOTALL)
    named = {name for blocks in code for block in blocks for name in _COMMAND.findall(block)}
    assert named <= commands() | {"pepperbus"}, named - commands()


def test_the_readme_names_every_page() -> None:
    for readme in ("README.md", "README.zh.md"):
        text = (ROOT / readme).read_text(encoding="utf-8")
        assert [page.name for page in ROOT.glob("docs/*.md") if f"docs/{page.name}" not in text] == []


def test_the_two_files_of_the_installing_page_are_valid(tmp_path: Path) -> None:
    node, queue = re.findall(r"```ini\n(.*?)```", (ROOT / "docs/INSTALL.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "queues.d").mkdir()
    (tmp_path / "pepperbus.conf").write_text(node.replace("user = pepperbus", "user = root"))
    (tmp_path / "queues.d/orders.conf").write_text(queue)
    assert load(tmp_path / "pepperbus.conf", {}).queues["orders"].topics["mail"].pool == "php"
