"""Convolutions of large maps for Hopper's tensor cores (Pallas, through Mosaic).

A convolution is a product whose left side is never written: a tile of cells times a tile of output
channels, summed over the filter's taps and the input channels. For each tap a tile's cells are the
same window of the map, moved by the tap; the copy engine fills in zeros outside the map. One
warpgroup copies ahead, two multiply what has arrived, half of the cells each, and write the sums.

The cuDNN that comes with jax 0.11 multiplies 160 channels at 50 to 80 % of the rate of these.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from sdvar_jax.runtime.gpu import compute_capability

_WINDOW = 64
"""Cells side by side in a tile, at most; rows of one wgmma instruction."""

_CELLS = (256, 128)
_COLUMNS = (160, 128, 64)
"""Sizes of tiles, best first: 256 cells times 160 sums in float32 are all that registers hold."""

_DEPTH = 32
"""Channels that are copied at a time."""

_FEW = 0.9
"""Tiles for each multiprocessor from which on these kernels are faster than cuDNN's."""

_SHARED_MEMORY = 225 * 1024
_MOST_STAGES = 8

_OF_COPIES, _OF_PRODUCTS = 40, 232
"""Registers of a thread."""


@dataclasses.dataclass(frozen=True)
class Tiles:
    """How a convolution is cut.

    Attributes:
      cells: of a tile, half of them a warpgroup's.
      columns: output channels of a tile.
    """

    cells: int
    columns: int

    @property
    def stages(self) -> int:
        """Copies under way, as shared memory has room for them beside the tile of results."""
        room = _SHARED_MEMORY - 2 * self.cells * self.columns
        return min(_MOST_STAGES, room // (2 * _DEPTH * (self.cells + self.columns)))


@functools.cache
def multiprocessors() -> int:
    """Those of the first device, where it and JAX can run these kernels; else 0."""
    able = compute_capability() == (9, 0) and jax.__version_info__ >= (0, 11)
    return int(jax.devices()[0].core_count) if able else 0


def _cuts(shape: tuple[int, ...], cells: int) -> bool:
    """Whether tiles of so many cells cut a map into whole ones."""
    _, height, width, _ = shape
    across = min(width, _WINDOW)
    return across % 16 == 0 and width % across == 0 and height % (cells // across) == 0


def tiles_for(
    shape: tuple[int, ...], channels: int, *, doubling: bool, multiprocessors: int
) -> Tiles | None:
    """How to cut the convolution of maps of this shape; None where cuDNN is faster.

    Args:
      shape: [batch, height, width, input channels].
      channels: of the output.
      doubling: whether the output has twice the side, which spares cuDNN's copies too.
      multiprocessors: of the device; 0 where it cannot run the kernels.
    """
    batch, height, width, depth = shape
    columns = next((columns for columns in _COLUMNS if channels % columns == 0), None)
    if not multiprocessors or columns is None or depth % _DEPTH:
        return None
    for cells in _CELLS:
        tiles = Tiles(cells, columns)
        count = batch * height * width // cells * channels // columns * (4 if doubling else 1)
        if _cuts(shape, tiles.cells) and count >= _FEW * multiprocessors:
            return tiles
    return None


def _split(number: Any, size: int) -> tuple[Any, Any]:
    """Quotient and remainder."""
    return jax.lax.div(number, jnp.int32(size)), jax.lax.rem(number, jnp.int32(size))


@dataclasses.dataclass(frozen=True)
class _Convolution:
    """Static sizes of a call, and where its tiles lie.

    Attributes:
      batch, height, width, depth: of the maps.
      channels: of the output.
      taps: the filter's side: 3, or 2 where the output has twice the side.
      tiles: how it is cut.
      margin: cells of zeros around the maps in memory.
    """

    batch: int
    height: int
    width: int
    depth: int
    channels: int
    taps: int
    tiles: Tiles
    margin: int

    @property
    def across(self) -> int:
        """Cells side by side in a tile."""
        return min(self.width, _WINDOW)

    @property
    def rows(self) -> int:
        """Of the map, in a tile."""
        return self.tiles.cells // self.across

    @property
    def strips(self) -> tuple[int, int]:
        """Tiles below and beside each other."""
        return self.height // self.rows, self.width // self.across

    @property
    def column_tiles(self) -> int:
        """Tiles of columns of one filter; a doubling one has four, for the parities of a cell."""
        return self.channels // self.tiles.columns

    @property
    def filters(self) -> int:
        return 4 if self.taps == 2 else 1

    @property
    def count(self) -> int:
        """All tiles."""
        down, right = self.strips
        return self.batch * down * right * self.filters * self.column_tiles

    @property
    def steps(self) -> int:
        """Copies of a tile: input channels of the taps."""
        return self.taps**2 * self.depth // _DEPTH

    def place(self, tile: Any) -> _Place:
        """Where a tile lies: tiles of columns of the same cells follow each other."""
        down, right = self.strips
        cells, columns = _split(tile, self.filters * self.column_tiles)
        parity, column = _split(columns, self.column_tiles)
        rest, right_strip = _split(cells, right)
        image, down_strip = _split(rest, down)
        return _Place(
            image,
            down_strip * self.rows,
            right_strip * self.across,
            columns * self.tiles.columns,
            column * self.tiles.columns,
            _split(parity, 2),
        )


@dataclasses.dataclass(frozen=True)
class _Place:
    """A tile's image, first row and column of the map, first columns, and its parities.

    ``filters`` counts the columns of all filters, ``channel`` those of the output.
    """

    image: Any
    row: Any
    column: Any
    filters: Any
    channel: Any
    parity: tuple[Any, Any]


def _copy_ahead(
    gpu: Any, sizes: _Convolution, x: Any, filters: Any, buffers: Any, *, programs: int
) -> None:
    """One warpgroup's part: windows of the map and filters, tile by tile, as buffers get free."""
    (_, cells_buffer), filters_buffer, _, full, free, _ = buffers
    stages, taps = sizes.tiles.stages, sizes.taps

    def wait_for(number: Any) -> Any:
        """The buffers of the copy of this number, counted over all tiles, once they are free."""
        stage = jax.lax.rem(number, jnp.int32(stages))

        @pl.when(number >= stages)
        def _wait() -> None:
            gpu.barrier_wait(free.at[stage])

        return stage

    @gpu.nd_loop((sizes.count,), collective_axes="program")
    def _tile(loop: Any) -> None:
        place = sizes.place(loop.index[0])
        # The first tap: one up and one to the left, of odd cells of a doubled map none.
        row, column = place.row - 1 + sizes.margin, place.column - 1 + sizes.margin
        if taps == 2:
            row, column = row + place.parity[0], column + place.parity[1]

        @pl.loop(0, sizes.steps)
        def _step(step: Any) -> None:
            stage = wait_for(loop.local_index * sizes.steps + step)
            # All taps of a few channels, then of the next: they are read again while they are near.
            piece, tap = _split(step, taps**2)
            down, right = _split(tap, taps)
            window = x.at[
                place.image,
                pl.ds(row + down, sizes.rows),
                pl.ds(column + right, sizes.across),
                pl.ds(piece * _DEPTH, _DEPTH),
            ]
            zeros = gpu.OOBFillMode.ZEROS
            gpu.copy_gmem_to_smem(window, cells_buffer.at[stage], full.at[stage], oob_mode=zeros)
            part = filters.at[
                pl.ds(place.filters, sizes.tiles.columns),
                pl.ds(tap * sizes.depth + piece * _DEPTH, _DEPTH),
            ]
            gpu.copy_gmem_to_smem(part, filters_buffer.at[stage], full.at[stage])

    # Every arrival is waited for, those behind the last copies too.
    own = jax.lax.div(sizes.count - 1 - jax.lax.axis_index("program"), jnp.int32(programs)) + 1

    @pl.loop(0, stages)
    def _end(more: Any) -> None:
        wait_for(own * sizes.steps + more)


def _multiply(
    gpu: Any, sizes: _Convolution, bias: Any, added: Any, out: Any, buffers: Any, *, half: Any
) -> None:
    """The part of each of the two other warpgroups: one half of the cells of every tile."""
    (cells_buffer, _), filters_buffer, (result, result_rows), full, free, arrived = buffers
    stages, columns = sizes.tiles.stages, sizes.tiles.columns
    blocks = sizes.tiles.cells // 2 // _WINDOW
    rows = sizes.rows // 2

    @gpu.nd_loop((sizes.count,), collective_axes="program")
    def _tile(loop: Any) -> None:
        place = sizes.place(loop.index[0])
        first = loop.local_index * sizes.steps

        def copies(ref: Any) -> list[tuple[Any, Any]]:
            """What this warpgroup writes of an array like the output, and where it lies here.

            One row of the map at a time: in one piece it would have too many dimensions.
            """
            channels = pl.ds(place.channel, columns)
            right = pl.ds(place.column, sizes.across)
            pieces = []
            for row in range(rows):
                down = place.row + half * rows + row
                at: tuple[Any, ...] = (place.image, down, right, channels)
                if sizes.taps == 2:
                    above, left = place.parity
                    at = (place.image, down, above, right, left, channels)
                pieces.append((ref.at[at], result_rows.at[half, row]))
            return pieces

        gpu.wait_smem_to_gmem(0, wait_read_only=True)

        def fetch(step: Any) -> None:
            """What is added, a row at a time: all at once it would hold up the other copies."""
            for row, (piece, to) in enumerate(copies(added)):
                turn = jax.lax.div((2 * row + half + 1) * sizes.steps, jnp.int32(2 * rows + 1))

                @pl.when(step == turn)
                def _copy(piece: Any = piece, to: Any = to) -> None:
                    gpu.copy_gmem_to_smem(piece, to, arrived.at[half])

        def summed(*sums: Any) -> None:
            @pl.loop(0, sizes.steps)
            def _step(step: Any) -> None:
                if added is not None:
                    fetch(step)
                stage = jax.lax.rem(first + step, jnp.int32(stages))
                gpu.barrier_wait(full.at[stage])
                for block, total in enumerate(sums):
                    cells = cells_buffer.at[stage, half * blocks + block]
                    gpu.wgmma(total, cells, filters_buffer.at[stage].transpose((1, 0)))
                # All but the products just begun have been made, and their copies can go.
                gpu.wgmma_wait(blocks)

                @pl.when(step > 0)
                def _release() -> None:
                    gpu.barrier_arrive(free.at[jax.lax.rem(first + step - 1, jnp.int32(stages))])

            gpu.wgmma_wait(0)
            last = first + sizes.steps - 1
            gpu.barrier_arrive(free.at[jax.lax.rem(last, jnp.int32(stages))])
            shift = gpu.load(
                bias.at[pl.ds(place.filters, columns)],
                layout=gpu.Layout.WGMMA.reduce(0),
                optimized=False,
            ).astype(jnp.float32)
            if added is not None:
                gpu.barrier_wait(arrived.at[half])
            for block, total in enumerate(sums):
                values = total[...] + jax.lax.broadcast_in_dim(shift, (_WINDOW, columns), [1])
                to = result.at[half, block]
                if added is not None:
                    values += gpu.load(to, layout=gpu.Layout.WGMMA).astype(jnp.float32)
                to[...] = values.astype(out.dtype)
            gpu.commit_smem()
            for piece, row in copies(out):
                gpu.copy_smem_to_gmem(row, piece)

        pl.run_scoped(summed, *[gpu.ACC((_WINDOW, columns), jnp.float32)] * blocks)

    gpu.wait_smem_to_gmem(0)


def _kernel(
    gpu: Any, sizes: _Convolution, refs: Any, buffers: Any, *, programs: int, interpret: bool
) -> None:
    x, filters, bias, *added, out = refs
    cells, filters_buffer, result, *barriers = buffers
    if interpret:  # One view is both.
        cells, result = (cells, cells), (result, result)
    buffers = (cells, filters_buffer, result, *barriers)
    warpgroup = jax.lax.axis_index("warpgroup")

    @pl.when(warpgroup == 2)
    def _copies() -> None:
        gpu.set_max_registers(_OF_COPIES, action="decrease")
        _copy_ahead(gpu, sizes, x, filters, buffers, programs=programs)

    @pl.when(warpgroup < 2)
    def _products() -> None:
        gpu.set_max_registers(_OF_PRODUCTS, action="increase")
        _multiply(gpu, sizes, bias, added[0] if added else None, out, buffers, half=warpgroup)


def _buffers(gpu: Any, sizes: _Convolution, dtype: Any, *, interpret: bool) -> list[Any]:
    """Shared memory and barriers, see the unpacking of ``_multiply``."""
    tiles = sizes.tiles

    def memory(shape: tuple[int, ...], swizzle: int, *, tiled: bool = True) -> Any:
        """Tiles of eight cells by as many channels as are swizzled, as products read them."""
        if interpret:
            return gpu.SMEM(shape, dtype)
        order = (gpu.TilingTransform((8, swizzle)),) if tiled else ()
        return gpu.SMEM(shape, dtype, transforms=(*order, gpu.SwizzleTransform(2 * swizzle)))

    def views(one: Any, other: Any) -> Any:
        """The same bytes as blocks of 64 cells for products, and as rows of a map for copies.

        One where both are the same, as in what is interpreted.
        """
        return one if interpret else gpu.RefUnion(one, other)

    blocks = tiles.cells // _WINDOW
    columns = tiles.columns
    swizzle = 32 if columns % 32 == 0 else 16
    return [
        # Tiles of eight cells lie one behind the other, so that untiled these are the same bytes.
        # Copies are not told of tiles, or could begin at every eighth cell alone.
        views(
            memory((tiles.stages, blocks, _WINDOW, _DEPTH), _DEPTH),
            memory((tiles.stages, sizes.rows, sizes.across, _DEPTH), _DEPTH, tiled=False),
        ),
        memory((tiles.stages, columns, _DEPTH), _DEPTH),
        views(
            memory((2, blocks // 2, _WINDOW, columns), swizzle),
            memory((2, sizes.rows // 2, sizes.across, columns), swizzle),
        ),
        gpu.Barrier(num_arrivals=2, num_barriers=tiles.stages),
        gpu.Barrier(num_arrivals=2, num_barriers=tiles.stages),
        gpu.Barrier(num_arrivals=sizes.rows // 2, num_barriers=2),
    ]


@functools.partial(jax.jit, static_argnames=("tiles", "programs", "interpret"))
def convolution(
    x: jax.Array,
    filters: jax.Array,
    bias: jax.Array,
    added: jax.Array | None = None,
    *,
    tiles: Tiles,
    programs: int,
    interpret: bool = False,
) -> jax.Array:
    """A 3x3 convolution, zeros around the map; or the four 2x2 ones that double it.

    Sums are float32, over the taps of 32 input channels after those of others; bias and
    ``added`` come last.

    Args:
      x: [batch, height, width, depth], 16-bit floats.
      filters: [3, 3, depth, channels], or [2, 2, depth, 4 * channels], whose channels are those of
        the parities (even, even), (even, odd), (odd, even), (odd, odd) of row and column
        (``layers.PhasedUpsample``). It is free where output channels come first in memory.
      bias: [channels] or [4 * channels].
      added: like the output, to be added to it; with 3x3 filters alone.
      tiles: how it is cut, by ``tiles_for``.
      programs: to run at a time: the device's multiprocessors.
      interpret: run without an accelerator, for tests; maps of 64 cells across or more.

    Returns:
      [batch, height, width, channels] or [batch, 2 * height, 2 * width, channels].
    """
    gpu: Any = importlib.import_module("jax.experimental.pallas.mosaic_gpu")  # 0.2 s
    batch, height, width, depth = x.shape
    taps = filters.shape[0]
    channels = bias.size // (4 if taps == 2 else 1)
    chex.assert_shape(filters, (taps, taps, depth, bias.size))
    # Interpreted copies cannot begin outside of the map.
    margin = 1 if interpret else 0
    sizes = _Convolution(batch, height, width, depth, channels, taps, tiles, margin)
    shape: tuple[int, ...] = (batch, height, width, channels)
    if added is not None:
        chex.assert_shape(added, shape)
    if taps == 2:
        shape = (batch, height, 2, width, 2, channels)
    chex.assert_type([x, filters, bias], x.dtype)
    programs = min(programs, sizes.count)

    def kernel(*refs: Any) -> None:
        pl.run_scoped(
            lambda *buffers: _kernel(
                gpu, sizes, refs, buffers, programs=programs, interpret=interpret
            ),
            *_buffers(gpu, sizes, x.dtype, interpret=interpret),
            collective_axes="warpgroup",
        )

    kernel.__name__ = "doubling_convolution" if taps == 2 else "convolution"
    out = gpu.kernel(
        kernel,
        out_type=jax.ShapeDtypeStruct(shape, x.dtype),
        grid=(programs,),
        grid_names=("program",),
        num_threads=3,
        thread_name="warpgroup",
        compiler_params=gpu.CompilerParams(lowering_semantics=gpu.LoweringSemantics.Lane),
        interpret=gpu.InterpretGPUParams() if interpret else None,
    )(
        jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0))) if margin else x,
        jnp.transpose(filters, (3, 0, 1, 2)).reshape(bias.size, -1),
        bias,
        *(() if added is None else (added,)),
    )
    return out.reshape(batch, 2 * height, 2 * width, channels) if taps == 2 else out
