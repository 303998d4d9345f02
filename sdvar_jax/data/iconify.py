"""Icon sets in the Iconify JSON format, as packed by ``npm pack @iconify-json/NAME``.

An archive is a gzipped tar with ``package/icons.json`` (SVG bodies, view boxes and aliases),
``metadata.json`` (categories), ``chars.json`` (code points; may be empty) and ``info.json``
(author and licence).
"""

from __future__ import annotations

import dataclasses
import json
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdvar_jax.errors import SdvarError

_DEFAULT_SIDE = 16  # of the format, where neither the icon nor the set gives one


@dataclasses.dataclass(frozen=True)
class Icon:
    """One drawing.

    Attributes:
      name: its name, unique in the set.
      body: what stands inside the ``<svg>`` element.
      view_box: left, top, width and height in user units.
      category: the set's own category, None where it gives none.
    """

    name: str
    body: str
    view_box: tuple[float, float, float, float]
    category: str | None

    def svg(self, size: int) -> str:
        """A complete SVG document, fitted and centred in ``size`` x ``size`` pixels."""
        box = " ".join(f"{value:g}" for value in self.view_box)
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{size}" height="{size}" viewBox="{box}">{self.body}</svg>'
        )


@dataclasses.dataclass(frozen=True)
class Credit:
    """Whom a style's pictures are owed to, and on which terms.

    Attributes:
      style: prefix of the icon set.
      title: its full name.
      version: version of the package.
      author: name of the author.
      author_url: where the originals are.
      licence: SPDX identifier of the licence.
      licence_url: text of the licence.
    """

    style: str
    title: str
    version: str
    author: str
    author_url: str
    licence: str
    licence_url: str


@dataclasses.dataclass(frozen=True)
class IconSet:
    """All drawings of one style.

    Attributes:
      style: prefix of the set, such as ``"noto"``.
      icons: the drawings, sorted by name.
      aliases: other name -> name of an icon.
      code_points: code point sequence (hexadecimal, joined by ``-``) -> name of an icon.
      credit: author and licence.
    """

    style: str
    icons: tuple[Icon, ...]
    aliases: Mapping[str, str]
    code_points: Mapping[str, str]
    credit: Credit


def read_archive(path: Path) -> IconSet:
    """Reads one packed icon set.

    Args:
      path: the ``.tgz`` archive.

    Raises:
      SdvarError: the archive cannot be read or is not an Iconify JSON package.
    """
    members = _read_members(path)
    try:
        return _icon_set(members)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SdvarError(
            f"{path} is not a usable Iconify package ({type(error).__name__}: {error}); "
            "pack it again with: npm pack @iconify-json/NAME"
        ) from error


def _read_members(path: Path) -> dict[str, Any]:
    wanted = ("icons", "metadata", "info", "package", "chars")
    members: dict[str, Any] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for name in wanted:
                try:
                    file = archive.extractfile(f"package/{name}.json")
                except KeyError:
                    file = None
                if file is not None:
                    members[name] = json.loads(file.read())
    except FileNotFoundError as error:
        raise SdvarError(f"no archive at {path}; check the path") from error
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError) as error:
        raise SdvarError(
            f"cannot read the archive {path} ({error}); pack it again with: "
            "npm pack @iconify-json/NAME"
        ) from error
    missing = [name for name in wanted[:3] if name not in members]
    if missing:
        raise SdvarError(
            f"{path} holds no package/{missing[0]}.json, so it is not an Iconify package; "
            "make one with: npm pack @iconify-json/NAME"
        )
    return members


def _icon_set(members: Mapping[str, Any]) -> IconSet:
    data, info = members["icons"], members["info"]
    style = data["prefix"]
    if not isinstance(style, str) or not style:
        raise ValueError("the set has no prefix")
    categories = {
        name: category
        for category, names in members["metadata"].get("categories", {}).items()
        for name in names
    }
    icons = tuple(
        Icon(name, _body(name, icon), _view_box(icon, data), categories.get(name))
        for name, icon in sorted(data["icons"].items())
    )
    author, licence = info.get("author", {}), info.get("license", {})
    return IconSet(
        style=style,
        icons=icons,
        aliases={name: alias["parent"] for name, alias in data.get("aliases", {}).items()},
        code_points=dict(members.get("chars", {})),
        credit=Credit(
            style=style,
            title=str(info.get("name", style)),
            version=str(members.get("package", {}).get("version", "")),
            author=str(author.get("name", "")),
            author_url=str(author.get("url", "")),
            licence=str(licence.get("spdx", licence.get("title", ""))),
            licence_url=str(licence.get("url", "")),
        ),
    )


def _body(name: str, icon: Mapping[str, Any]) -> str:
    body = icon["body"]
    if not isinstance(body, str):
        raise ValueError(f"the body of icon {name} is not text")
    return body


def _view_box(
    icon: Mapping[str, Any], data: Mapping[str, Any]
) -> tuple[float, float, float, float]:
    def number(key: str, default: float) -> float:
        return float(icon.get(key, data.get(key, default)))

    width, height = number("width", _DEFAULT_SIDE), number("height", _DEFAULT_SIDE)
    if not (width > 0 and height > 0):
        raise ValueError(f"a view box of {width:g} x {height:g}")
    return number("left", 0.0), number("top", 0.0), width, height
