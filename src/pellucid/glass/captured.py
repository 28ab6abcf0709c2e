"""Captured: the activations of one sequence, to be read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import UsageError
from pellucid.types import Array, Float32, Int32

if TYPE_CHECKING:
    from pellucid.glass.flow import Capture
    from pellucid.glass.shards import Shards


class Captured:
    """What a `Capture` has kept of one sequence.

        captured = llm.generate("Once upon a time", capture=Capture(), max_tokens=50).captured
        captured["resid_post"]            # float32 [positions, layers, width]
        captured.at("resid_post", -1)     # float32 [positions, width]

    positions: int32, ascending: what row i is the position of. token_ids: int32, of the whole sequence. missing: runs
    of positions that were asked for and are not there: (start, stop, why). num_layers: of the model. model_print:
    which one that is, "architecture" and "weights" (SHA-256); None: it was not told.
    """

    def __init__(
        self,
        *,
        capture: Capture,
        layers: Mapping[str, tuple[int, ...]],
        token_ids: Int32,
        positions: Int32,
        missing: tuple[tuple[int, int, str], ...],
        num_layers: int,
        model_print: Mapping[str, str] | None = None,
        pieces: Mapping[str, tuple[list[Array], Array]] | None = None,
        shards: Shards | None = None,
    ) -> None:
        """pieces: by site: arrays to be joined, and the rows of them that count; or else shards."""
        self.capture = capture
        self.token_ids = token_ids
        self.positions = positions
        self.missing = missing
        self.num_layers = num_layers
        self.model_print = None if model_print is None else dict(model_print)
        self._layers = dict(layers)
        self._pieces = pieces or {}
        self._shards = shards

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self._layers)

    def layers(self, site: str) -> tuple[int, ...]:
        """The layers that there are of a site, ascending. UsageError: it was not captured."""
        if site not in self._layers:
            raise UsageError(f"site {site!r:.40} was not captured; there are: {', '.join(self._layers)}")
        return self._layers[site]

    def stored(self, site: str) -> Array:
        """[positions, layers, width] as they were kept: float32, float16, or uint16, the bits of bfloat16. With
        reduce="norm", width is 1."""
        self.layers(site)
        return self._read(site, slice(None))

    def __getitem__(self, site: str) -> Float32:
        """float32 [positions, layers, width], exact where the dtype is float32."""
        return _as_float32(self.stored(site))

    def at(self, site: str, layer: int) -> Float32:
        """float32 [positions, width] of one layer; negative numbers count from the model's end."""
        layers = self.layers(site)
        number = layer % self.num_layers if layer < 0 and site != "final" else layer
        if site == "final":
            number = self.num_layers
        if number not in layers:
            raise UsageError(
                f"layer {layer} of {site} was not captured; there are: {', '.join(map(str, layers))}"
            )
        return _as_float32(self._read(site, layers.index(number)))

    def _read(self, site: str, which: slice | int) -> Array:
        """All layers, or one by its place among them, which alone is copied."""
        if self._shards is not None:
            return self._shards.read(site)[:, which]
        pieces, index = self._pieces[site]
        if not pieces:
            raise UsageError("nothing is captured yet: no position that was asked for has been computed")
        joined: Array = np.concatenate([piece[:, which] for piece in pieces])
        return joined[: len(index)] if len(index) and index[-1] == len(index) - 1 else joined[index]

    @property
    def num_bytes(self) -> int:
        """Of the values, as they are kept."""
        return sum(self.stored(site).nbytes for site in self.sites)

    # --- views ----------------------------------------------------------------------------------------
    def norms(self, site: str = "resid_post") -> Float32:
        """The L2 norm of each row: float32 [positions, layers]."""
        values = self[site]
        if self.capture.reduce == "norm":
            return values[..., 0]
        found: Float32 = np.sqrt(np.einsum("plw,plw->pl", values, values, dtype=np.float64)).astype(
            np.float32
        )
        return found

    def cosines(self, site: str = "resid_post") -> Float32:
        """How far each layer turns the stream: the cosine between a layer's row and the next one's that was captured,
        float32 [positions, layers - 1]. UsageError: only norms were kept."""
        self._need_values("cosines")
        values = self[site].astype(np.float64)
        norms = np.sqrt((values * values).sum(-1))
        found: Float32 = (
            (values[:, 1:] * values[:, :-1]).sum(-1) / np.maximum(norms[:, 1:] * norms[:, :-1], 1e-300)
        ).astype(np.float32)
        return found

    def mean(self, site: str = "resid_post") -> Float32:
        """The mean over positions, for `MeanAblate` and steering: float32 [layers, width]."""
        self._need_values("mean")
        found: Float32 = self[site].mean(axis=0, dtype=np.float64).astype(np.float32)
        return found

    def digests(self, site: str = "resid_post") -> Array:
        """uint64 [positions, layers]: the first 8 bytes (little endian) of BLAKE2b of each row as it was kept."""
        values = np.ascontiguousarray(self.stored(site))
        flat = values.reshape(-1, values.shape[-1])
        made = [int.from_bytes(hashlib.blake2b(row.data, digest_size=8).digest(), "little") for row in flat]
        return np.array(made, np.uint64).reshape(values.shape[:2])

    # --- files ----------------------------------------------------------------------------------------
    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes safetensors shards and `capture.json` (docs/capture.md); the folder must not exist or be empty.
        Errors: UsageError, CaptureFileError."""
        from pellucid.glass.shards import save

        save(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Captured:
        """What `save`, or a capture with `to`, has written. Values are read when asked for. CaptureFileError."""
        from pellucid.glass.shards import load

        return load(folder)

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{site} x {len(layers)}" for site, layers in self._layers.items())
        gaps = sum(stop - start for start, stop, _ in self.missing)
        return f"Captured({len(self)} positions, {shapes}" + (f"; {gaps} positions missing)" if gaps else ")")

    def _repr_html_(self) -> str:
        from pellucid.report.notebook import captured_html

        return captured_html(self)

    def need(self, what: str, places: Mapping[str, Iterable[int]]) -> None:
        """UsageError: the values of these layers (by site) are not all there. what: who needs them."""
        self._need_values(what)
        for site, layers in places.items():
            lacking = next((layer for layer in layers if layer not in self._layers.get(site, ())), None)
            if lacking is not None:
                wanted = ", ".join(f'"{name}"' for name in places)
                raise UsageError(
                    f"{what}: {site!r} was not captured of layer {lacking}; capture with Capture(sites=({wanted})), or "
                    "give the text instead"
                )

    def need_model(self, what: str, model_print: Mapping[str, str]) -> None:
        """UsageError: this is of another model. what: who reads it."""
        own = self.model_print
        if own is not None and own != model_print:
            here, there = (
                f"{each['architecture']}, weights {each['weights'][:16]}" for each in (model_print, own)
            )
            raise UsageError(
                f"{what}: expected what was captured of this model ({here}), got that of another ({there}); open that "
                "one, or give the text instead"
            )

    def _need_values(self, what: str) -> None:
        if self.capture.reduce is not None:
            raise UsageError(f"{what}: only norms were kept; capture with reduce=None")

    def facts(self) -> dict[str, Any]:
        """All but the values, as the constructor takes it."""
        return {
            "capture": self.capture, "layers": self._layers, "token_ids": self.token_ids, "positions": self.positions,
            "missing": self.missing, "num_layers": self.num_layers, "model_print": self.model_print,
        }  # fmt: skip


def _as_float32(values: Array) -> Float32:
    """float32, float16, or uint16, the bits of bfloat16: exact."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)
