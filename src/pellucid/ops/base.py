"""The operations that a model is written in. `cpu` runs them in native code, `reference` in plain NumPy.

x: activations, float32 [rows, width], C-contiguous. Every operation returns new arrays and is, for each row,
a function of that row alone (attention: of that row's sequence alone), so a row's bits do not depend on the
batch that it shares. To add a backend, write one file with a class of this protocol.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from pellucid.types import Batch, Float32, Int32, LayerSpec, Logits
from pellucid.weights.tensor import Tensor

# Of K and V: as in capacity.py, which must not import NumPy; in the order of KvFormat in kernels/attention.h.
KV_FORMATS: Final = ("f32", "f16", "bf16", "q8_0", "i16")

# The sites of a model's page (Batch.site), in the order of the page. attn_in, mlp_in: after the block's norm. q, k: as
# attended, after norm and rotation. z: what the heads give, before the output projection. attn_out, mlp_out: what is
# added to the residual stream. `final` is a site of layer len(layers): after the final norm, what the head reads.
SITES: Final = (
    "resid_pre", "attn_in", "q", "k", "v", "z", "attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post", "final",
)  # fmt: skip
LATE_SITES: Final = frozenset(SITES[6:])  # in the last layer they have Batch.logit_rows only


class Ops(Protocol):
    name: str
    num_bf16_products: int  # matrices so far whose x is rounded to bfloat16 (LLM's `activations`)

    # --- at load time: weights in the form that this backend multiplies -------------------------------
    def matrix(self, weight: Tensor, bias: Float32 | None = None) -> Any:
        """A [outputs, inputs] weight (and bias [outputs]) for `linear`, repacked, perhaps only by
        `finish_loading`; the file's bytes are released."""

    def finish_loading(self) -> None:
        """Called once all weights were asked for; returns when they are ready."""

    def head(self, weight: Tensor) -> Any:
        """The [vocabulary, width] output projection for `logits`."""

    def embedding(self, weight: Tensor) -> Any:
        """A [vocabulary, width] table for `embed`; rows are read from the file when asked for."""

    def rope_table(self, inv_freq: Float32, max_positions: int, scale: float = 1.0) -> Any:
        """Rotation table for `rope`: float32 angles position * inv_freq [rotary / 2]; cos and sin times
        scale."""

    def kv_cache(self, specs: list[LayerSpec], num_blocks: int, block_size: int, kv_format: str) -> Any:
        """K and V tensors for all layers: kv_format of KV_FORMATS. Memory is touched only where written."""

    def replaying(self, model: Any) -> Any:
        """The model in the fastest form that this backend has for passes of a shape that comes again: the
        same bits. Its logits are valid until its next call."""

    # --- in a forward pass --------------------------------------------------------------------------
    def embed(self, table: Any, token_ids: Int32, scale: float = 1.0) -> Float32:
        """[rows] -> [rows, width], each value times `scale` (one float32 multiplication)."""

    def linear(self, x: Float32, weight: Any) -> Float32:
        """x @ W.T + bias: [rows, inputs] -> [rows, outputs]. Quantised weights: x is rounded to int8 in
        blocks of 32. BF16 weights: x is rounded to bfloat16 where the backend was made so (LLM's `activations`)."""

    def linears(self, x: Float32, *weights: Any) -> tuple[Float32, ...]:
        """Several `linear` of one x (its rounding shared); same bits as one by one."""

    def logits(self, x: Float32, head: Any, batch: Batch) -> Logits:
        """`linear` of the head, of batch.head_rows. Where batch.choice_only says that a choice is all that is wanted,
        a backend may give bounds instead."""

    def rms_norm(self, x: Float32, weight: Float32, eps: float) -> Float32:
        """x / sqrt(mean(x^2) + eps) * weight over groups of len(weight) along the last axis
        (so [rows, heads * head_dim] with weight [head_dim] is a norm for each head)."""

    def layer_norm(self, x: Float32, weight: Float32, bias: Float32, eps: float) -> Float32:
        """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis."""

    def rope(
        self, x: Float32, positions: Int32, table: Any, head_dim: int, interleaved: bool = False
    ) -> Float32:
        """Rotary position embedding of [rows, heads * head_dim]; pairs (i, i + rotary/2), or (2i, 2i + 1) if
        interleaved; dimensions past `rotary` pass through. Su et al. 2021, arXiv 2104.09864."""

    def attention(
        self,
        q: Float32,
        k: Float32,
        v: Float32,
        cache: Any,
        layer: int,
        batch: Batch,
        scale: float,
    ) -> Float32:
        """Write k and v [rows, kv_heads * head_dim] to the cache at batch.slots (rounded to its format),
        then causal attention of q [rows, heads * head_dim] over its sequence, in the layer's window. ->
        [rows, heads * head_dim]."""

    def glu(self, gate: Float32, up: Float32, activation: str) -> Float32:
        """activation(gate) * up; "silu" or "gelu_tanh"."""

    def gated_mlp(self, x: Float32, gate: Any, up: Any, down: Any, activation: str) -> Float32:
        """linear(glu(linear(x, gate), linear(x, up), activation), down): same bits as one by one."""

    def activation(self, x: Float32, activation: str) -> Float32:
        """ "silu", "gelu_tanh" or "gelu" (exact, by erf), element by element."""

    def add(self, x: Float32, y: Float32) -> Float32:
        """x + y, the residual connection. y may be [width] (a row added to all)."""

    def rows(self, x: Float32, index: Int32) -> Float32:
        """x[index]."""
