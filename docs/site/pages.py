"""Pages of the site that are no files of docs/: the README as its start, the API of the three faces, and executed notebooks.

mkdocs calls the functions named on_... (mkdocs.yml). Nothing of ours is imported: the faces are read from the source.
"""

import ast
import base64
import itertools
import json
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
ROOMS = ("data", "model", "train")
EXECUTED = ROOT / "notebooks" / "executed"
LONGEST_OUTPUT = 40
"""Lines of a cell's printed output that a page shows."""


def on_config(config):
    """The navigation without pages that this checkout lacks, and with the notebooks that have been executed."""
    made = {"index.md", *(f"api/{room}.md" for room in ROOMS)}
    for part in config.nav:
        for title, pages in part.items():
            if isinstance(pages, list):
                part[title] = [page for page in pages if page in made or (ROOT / "docs" / page).exists()]
                part[title] += [page_of(path) for path in executed()] if title == "Notebooks" else []
    config.nav = [part for part in config.nav if all(part.values())]
    return config


def on_files(files, config):
    texts = {"index.md": "---\nhide: [navigation]\n---\n" + (ROOT / "README.md").read_text()}
    texts |= {f"api/{room}.md": api_page(room) for room in ROOMS}
    for path in executed():
        texts |= notebook_files(path)
    for name, text in texts.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links of the repository become links of the site; what the site does not hold is named without a link."""
    source = page.file.src_uri
    folder = "" if source == "index.md" else posixpath.dirname(source) or "docs"

    def link(match):
        shown, words, (target, hash_, anchor) = match[1], match[2], match[3].partition("#")
        if not target or "://" in match[3] or source.startswith("api/"):
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        name = "index.md" if path == "README.md" else page_of(Path(path)) if path.endswith(".ipynb") else path.removeprefix("docs/")
        file = files.get_file_from_path(name)
        if file is None:
            return match[0] if path.startswith("docs/") else words  # the strict build refuses the first
        if file.is_documentation_page() and posixpath.basename(words) == posixpath.basename(path):
            words = heading(file)
        return f"{shown}[{words}]({posixpath.relpath(name, posixpath.dirname(source) or '.')}{hash_}{anchor})"

    pieces = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    pieces[::2] = [re.sub(r"(!?)\[([^]]*)\]\(([^)\s]+)\)", link, piece) for piece in pieces[::2]]
    # GitHub wants a pipe escaped inside the code of a table, Python-Markdown shows the backslash.
    return re.sub(r"`[^`\n]*`", lambda code: code[0].replace(r"\|", "|"), "".join(pieces))


def heading(file: File) -> str:
    """The title of a page: a file's name says less."""
    return re.search(r"^# (.*)$", file.content_string, re.MULTILINE)[1]


def executed() -> list[Path]:
    return sorted(EXECUTED.glob("*.ipynb"))


def page_of(notebook: Path) -> str:
    return f"notebooks/{notebook.stem}.md"


def api_page(room: str) -> str:
    """What a room says of itself, and every name of its face."""
    tree = ast.parse((ROOT / room / "__init__.py").read_text())
    face = next(node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_FACE")
    names = "\n\n".join(f"::: {room}.{module}.{name}" for name, module in ast.literal_eval(face).items())
    return f"# Python API: `{room}`\n\n{ast.get_docstring(tree)}\n\nImport a name with `from {room} import NAME`.\n\n{names}\n"


def notebook_files(path: Path) -> dict[str, str | bytes]:
    """The page of an executed notebook, and its pictures. Its first cell, which installs, is left out, as are badges from the network."""
    parts, pictures, cells = [], {}, json.loads(path.read_text())["cells"]
    cells.remove(next(cell for cell in cells if cell["cell_type"] == "code"))
    for cell in cells:
        source = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            parts.append(re.sub(r"\[!\[[^]]*\]\(http[^)]*\)\]\([^)]*\)", "", source))
        elif cell["cell_type"] == "code" and source:
            parts.append(fenced(source, "python"))
        # A stream comes in as many pieces as it was flushed in.
        for name, outputs in itertools.groupby(cell.get("outputs", []), lambda output: output.get("name")):
            if name is not None:
                parts += printed("".join("".join(output["text"]) for output in outputs if name == "stdout"))
                continue
            for data in (output.get("data", {}) for output in outputs):
                if "image/png" in data:
                    picture = f"{path.stem}_{len(pictures)}.png"
                    pictures[f"notebooks/{picture}"] = base64.b64decode("".join(data["image/png"]))
                    parts.append(f"![Output of the cell above]({picture})")
                elif "text/html" in data:
                    parts.append(f"<div>{''.join(data['text/html'])}</div>")
                else:
                    parts += printed("".join(data.get("text/plain", "")))
    return {page_of(path): "\n\n".join(parts) + "\n", **pictures}


def printed(text: str) -> list[str]:
    """A block of output, cut where it is long; nothing for what is empty or says no more than where an object lies in memory."""
    lines = text.strip("\n").splitlines()
    if not text.strip() or re.fullmatch(r"<.* at 0x[0-9a-f]+>", text.strip()):
        return []
    return [fenced("\n".join(lines[:LONGEST_OUTPUT] + ["..."] * (len(lines) > LONGEST_OUTPUT)), "text")]


def fenced(text: str, language: str) -> str:
    """A block of code, whatever fences it holds."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
