"""Icon archives small enough to read: what the tests prepare sets from."""

import io
import json
import tarfile

SQUARE = '<path fill="{0}" d="M2 2h12v12H2z"/>'
DISC = '<circle cx="8" cy="8" r="6" fill="{0}"/>'


def pack(path, prefix, icons, categories, *, chars=None, aliases=None, members=None):
    """Writes the archive that ``npm pack`` would: icons is name -> SVG body.

    members replaces whole JSON files of the archive, by name.
    """
    contents = {
        "icons": {
            "prefix": prefix,
            "width": 16,
            "height": 16,
            "icons": {name: {"body": body} for name, body in icons.items()},
            "aliases": {name: {"parent": parent} for name, parent in (aliases or {}).items()},
        },
        "metadata": {"categories": categories},
        "info": {
            "name": prefix.title(),
            "author": {"name": "Ann Author", "url": "https://example.org"},
            "license": {"title": "MIT", "spdx": "MIT", "url": "https://example.org/licence"},
        },
        "package": {"version": "1.2.3"},
        "chars": chars or {},
        **(members or {}),
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(f"package/{name}.json")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path
