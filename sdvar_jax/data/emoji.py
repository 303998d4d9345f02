"""Preparation of the emoji image set: icon archives in, one file of labelled pictures out.

A class is a style (whose drawing) and a category (what kind of thing), such as
``noto/Food & Drink``. The held-out split is by glyph across all styles: no variant and no other
style's drawing of a held-out emoji is left for training.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from sdvar_jax.data.categories import CATEGORIES, as_category, majority, uses_older_scheme
from sdvar_jax.data.container import EncodedImages, encode_image, join_payload, write_images
from sdvar_jax.data.glyph import DisjointSets, base_code_points, base_name
from sdvar_jax.data.iconify import Icon, IconSet, read_archive
from sdvar_jax.data.npm import fetch_packages
from sdvar_jax.data.rasterise import rasterise, require_renderer
from sdvar_jax.data.split import is_heldout
from sdvar_jax.errors import SdvarError
from sdvar_jax.runtime.atomic import check_file_destination

_MAX_SIZE = 1024


@dataclasses.dataclass(frozen=True)
class PreparationReport:
    """What a preparation made.

    Attributes:
      output: the file written.
      size: side of the pictures in pixels.
      train_counts: training pictures of each class, every class named.
      heldout_counts: held-out pictures of each class, every class named.
      num_glyphs: different glyphs among the pictures.
      num_heldout_glyphs: those of them that are held out.
      recovered: pictures without a category of their own, which took their glyph's.
      dropped: icons left out, by reason.
      file_bytes: size of the file.
      seconds: wall time of the preparation, fetching included.
    """

    output: Path
    size: int
    train_counts: Mapping[str, int]
    heldout_counts: Mapping[str, int]
    num_glyphs: int
    num_heldout_glyphs: int
    recovered: int
    dropped: Mapping[str, int]
    file_bytes: int
    seconds: float

    @property
    def num_train(self) -> int:
        """Training pictures in all."""
        return sum(self.train_counts.values())

    @property
    def num_heldout(self) -> int:
        """Held-out pictures in all."""
        return sum(self.heldout_counts.values())


@dataclasses.dataclass(frozen=True)
class _Drawing:
    """One icon, drawn: digest of its pixels and the compressed picture, empty if it is blank."""

    style: str
    icon: Icon
    digest: bytes
    picture: bytes

    @property
    def key(self) -> tuple[str, str]:
        return self.style, self.icon.name


def prepare_emoji(
    archives: Sequence[Path] | None,
    output: Path,
    size: int = 64,
    *,
    heldout_fraction: float = 0.05,
    workers: int | None = None,
    show_progress: bool = True,
) -> PreparationReport:
    """Builds the emoji image set.

    The same archives give the same bytes, in whatever order they are listed.

    Args:
      archives: packed Iconify sets (``.tgz``); None fetches the four openly licensed ones with
        ``npm pack``.
      output: the file to write; an existing one is replaced at the end.
      size: side of the pictures in pixels.
      heldout_fraction: share of the glyphs to hold out, in ``[0, 1)``.
      workers: threads that draw; None takes one a processor.
      show_progress: whether to show a progress bar on standard error.

    Raises:
      SdvarError: an archive is bad, an argument is out of range, ``output`` cannot be written or
        a program that is needed is missing.
    """
    started = time.monotonic()
    output = Path(output)
    _check_arguments(archives, size, heldout_fraction, workers)
    check_file_destination(output)
    require_renderer()
    icon_sets = _read_icon_sets(archives)
    drawings = _draw(icon_sets, size, workers or os.cpu_count() or 1, show_progress)
    dropped: Counter[str] = Counter()
    glyphs = _group_by_glyph(icon_sets, drawings)
    categories = _categories(icon_sets, glyphs)
    kept = _select(drawings, categories, dropped)
    if not kept:
        raise SdvarError("none of the icons can be used: the archives give them no known category")
    images = _assemble(icon_sets, kept, glyphs, categories, size, heldout_fraction)
    write_images(output, images)
    return _report(output, images, kept, dropped, time.monotonic() - started)


def _check_arguments(
    archives: Sequence[Path] | None, size: int, heldout_fraction: float, workers: int | None
) -> None:
    if archives is not None and not archives:
        raise SdvarError("no archives given; give .tgz files, or none at all to fetch them")
    if not 8 <= size <= _MAX_SIZE:
        raise SdvarError(f"the picture size must be 8 to {_MAX_SIZE} pixels, got {size}")
    if not 0 <= heldout_fraction < 1:
        raise SdvarError(f"the held-out fraction must be in [0, 1), got {heldout_fraction}")
    if workers is not None and workers < 1:
        raise SdvarError(f"at least one worker is needed, got {workers}")


def _read_icon_sets(archives: Sequence[Path] | None) -> tuple[IconSet, ...]:
    with contextlib.ExitStack() as stack:
        if archives is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            archives = fetch_packages(Path(directory))
        icon_sets = [read_archive(Path(path)) for path in archives]
    counts = Counter(icon_set.style for icon_set in icon_sets)
    doubled = sorted(style for style, count in counts.items() if count > 1)
    if doubled:
        raise SdvarError(f"two archives hold the icon set {doubled[0]}; give each set once")
    return tuple(sorted(icon_sets, key=lambda icon_set: icon_set.style))


def _draw(
    icon_sets: Sequence[IconSet], size: int, workers: int, show_progress: bool
) -> list[_Drawing]:
    """Draws every icon, in the order of the sets."""

    def draw(job: tuple[str, Icon]) -> _Drawing:
        style, icon = job
        try:
            pixels = rasterise(icon.svg(size))  # [size, size, 3]
        except ValueError as error:
            raise SdvarError(
                f"the icon {icon.name} of {style} cannot be drawn ({error}); pack the set again"
            ) from error
        blank = bool((pixels == pixels[0, 0]).all())
        digest = hashlib.sha256(pixels.tobytes()).digest()
        return _Drawing(style, icon, digest, b"" if blank else encode_image(pixels))

    jobs = [(icon_set.style, icon) for icon_set in icon_sets for icon in icon_set.icons]
    pool = ThreadPoolExecutor(workers)
    try:
        return list(_tracked(pool.map(draw, jobs), len(jobs), show_progress))
    finally:
        pool.shutdown(cancel_futures=True)


def _tracked(drawings: Iterator[_Drawing], total: int, show_progress: bool) -> Iterator[_Drawing]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not show_progress) as progress:
        yield from progress.track(drawings, total=total, description="drawing icons")


def _group_by_glyph(
    icon_sets: Sequence[IconSet], drawings: Sequence[_Drawing]
) -> dict[tuple[str, str], str]:
    """The glyph of each icon ``(style, name)``.

    Icons are one glyph when they share base code points, a base name (an alias counts) or all
    their pixels, directly or through others. The glyph is called by its shortest code points, or
    by its shortest name where it has none.
    """
    sets = DisjointSets()
    labels: list[tuple[str, str]] = []
    for icon_set in icon_sets:
        icons = {icon.name for icon in icon_set.icons}
        known = icons | set(icon_set.aliases)
        links = [(name, ("name", base_name(name, known))) for name in sorted(icons)]
        links += [(icon, ("name", base_name(a, known))) for a, icon in icon_set.aliases.items()]
        links += [(icon, ("code", base_code_points(c))) for c, icon in icon_set.code_points.items()]
        for icon, label in links:
            if icon in icons:
                sets.union((icon_set.style, icon), label)
                labels.append(label)
    for drawing in drawings:
        if drawing.picture:
            sets.union(drawing.key, ("pixels", drawing.digest))

    best: dict[Hashable, tuple[bool, int, str]] = {}
    for label in labels:
        kind, text = label
        root = sets.find(label)
        rank = (kind != "code", text.count("-"), text)
        best[root] = min(best.get(root, rank), rank)
    return {drawing.key: best[sets.find(drawing.key)][-1] for drawing in drawings}


def _categories(
    icon_sets: Sequence[IconSet], glyphs: Mapping[tuple[str, str], str]
) -> dict[tuple[str, str], str]:
    """The category of each icon that has one: its own, else the one most icons of its glyph have.

    In sets of the older scheme the glyph's category comes first: it is the finer one.
    """
    votes: defaultdict[str, list[str]] = defaultdict(list)
    own: dict[tuple[str, str], str] = {}
    older: set[str] = set()
    nameless: set[tuple[str, str]] = set()
    for icon_set in icon_sets:
        if uses_older_scheme(icon.category for icon in icon_set.icons):
            older.add(icon_set.style)
        for icon in icon_set.icons:
            key = icon_set.style, icon.name
            category = as_category(icon.category)
            if category is not None:
                own[key] = category
                if icon_set.style not in older:
                    votes[glyphs[key]].append(category)
            elif icon.category is not None:
                nameless.add(key)  # the set says that it belongs to none of the nine
    agreed = {glyph: majority(cast) for glyph, cast in votes.items()}
    chosen: dict[tuple[str, str], str] = {}
    for key, glyph in glyphs.items():
        common, mine = agreed.get(glyph), own.get(key)
        category = (common or mine) if key[0] in older else (mine or common)
        if category is not None and key not in nameless:
            chosen[key] = category
    return chosen


def _select(
    drawings: Sequence[_Drawing],
    categories: Mapping[tuple[str, str], str],
    dropped: Counter[str],
) -> list[_Drawing]:
    """The drawings to keep: with a category, not blank, and each picture once a class.

    Of equal pictures the one that has a category of its own stays, then the first by name.
    """
    kept: list[_Drawing] = []
    seen: set[tuple[str, str, bytes]] = set()
    ordered = sorted(drawings, key=lambda d: (d.style, d.icon.category is None, d.icon.name))
    for drawing in ordered:
        category = categories.get(drawing.key)
        if category is None:
            dropped["no category"] += 1
        elif not drawing.picture:
            dropped["blank"] += 1
        elif (identity := (drawing.style, category, drawing.digest)) in seen:
            dropped["duplicate"] += 1
        else:
            seen.add(identity)
            kept.append(drawing)
    return sorted(kept, key=lambda d: d.key)


def _assemble(
    icon_sets: Sequence[IconSet],
    kept: Sequence[_Drawing],
    glyphs: Mapping[tuple[str, str], str],
    categories: Mapping[tuple[str, str], str],
    size: int,
    heldout_fraction: float,
) -> EncodedImages:
    class_names = tuple(f"{s.style}/{category}" for s in icon_sets for category in CATEGORIES)
    number = {name: label for label, name in enumerate(class_names)}
    labels = [number[f"{d.style}/{categories[d.key]}"] for d in kept]
    of_kept = tuple(glyphs[d.key] for d in kept)
    offsets, payload = join_payload(d.picture for d in kept)
    return EncodedImages(
        size=size,
        class_names=class_names,
        labels=np.array(labels, np.int32),
        heldout=np.array([is_heldout(glyph, heldout_fraction) for glyph in of_kept], np.bool_),
        glyphs=of_kept,
        names=tuple(f"{d.style}:{d.icon.name}" for d in kept),
        offsets=offsets,
        payload=payload,
        credits=tuple(icon_set.credit for icon_set in icon_sets),
    )


def _report(
    output: Path,
    images: EncodedImages,
    kept: Sequence[_Drawing],
    dropped: Mapping[str, int],
    seconds: float,
) -> PreparationReport:
    def per_class(labels: np.ndarray) -> dict[str, int]:
        counts = np.bincount(labels, minlength=len(images.class_names))
        return {name: int(n) for name, n in zip(images.class_names, counts, strict=True)}

    heldout_glyphs = {g for g, out in zip(images.glyphs, images.heldout, strict=True) if out}
    return PreparationReport(
        output=output,
        size=images.size,
        train_counts=per_class(images.labels[~images.heldout]),
        heldout_counts=per_class(images.labels[images.heldout]),
        num_glyphs=len(set(images.glyphs)),
        num_heldout_glyphs=len(heldout_glyphs),
        recovered=sum(drawing.icon.category is None for drawing in kept),
        dropped=dict(sorted(dropped.items())),
        file_bytes=output.stat().st_size,
        seconds=seconds,
    )
