"""Text generation for transformer language models: fast, exact, and open to the eye at every step.

    import pellucid

    llm = pellucid.LLM("smollm2-135m-instruct")
    print(llm.generate("The best way to learn a new skill is", max_tokens=40).text)

The names here are the public ones. Each is imported when it is first used: importing pellucid costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.chat.answer import ChatAnswer, ChatChunk
    from pellucid.chat.session import ChatSession
    from pellucid.chat.turn import ChatTurn
    from pellucid.errors import (
        ChatFileError,
        ContextOverflowError,
        DownloadError,
        ModelFileError,
        ModelNotFoundError,
        PellucidError,
        QueueFullError,
        RunFileError,
        TemplateError,
        UnsupportedModelError,
        UsageError,
    )
    from pellucid.front.recorder import Recorder
    from pellucid.glass.captured import Captured
    from pellucid.glass.flow import Capture
    from pellucid.glass.intervene import ForceToken, MeanAblate, Patch, Scale, Steer, ZeroAblate
    from pellucid.glass.run import Run
    from pellucid.glass.runfile import read_run
    from pellucid.held.generation import Generation
    from pellucid.held.steps import Candidate, Step, StepRecord
    from pellucid.info import ModelInfo, inspect_model
    from pellucid.llm import LLM
    from pellucid.outputs import (
        Alternative,
        Chunk,
        Counts,
        Drop,
        GenerationResult,
        Sample,
        Timings,
        TokenLogprobs,
    )
    from pellucid.sampling.params import SamplingParams
    from pellucid.scoring.results import Perplexity, Score, Scores, StringProbability
    from pellucid.search.beams import BeamResult, StochasticBeamResult, WeightedOutput
    from pellucid.search.certificate import Certificate, Verification
    from pellucid.search.contrastive import ContrastiveResult
    from pellucid.search.reranking import Consensus, Ranked, Reranked
    from pellucid.search.search import Bounds, SearchOutput, SearchResult
    from pellucid.serving.async_llm import AsyncLLM
    from pellucid.serving.async_stream import AsyncStream
    from pellucid.serving.stream import Stream
    from pellucid.settings import Setting, Settings
    from pellucid.text.answers.spans import ToolCall
    from pellucid.text.tokenizer import Tokenizer, load_tokenizer
    from pellucid.weights.locate import locate

__all__ = [
    "LLM",
    "Alternative",
    "AsyncLLM",
    "AsyncStream",
    "BeamResult",
    "Bounds",
    "Candidate",
    "Capture",
    "Captured",
    "Certificate",
    "ChatAnswer",
    "ChatChunk",
    "ChatFileError",
    "ChatSession",
    "ChatTurn",
    "Chunk",
    "Consensus",
    "ContextOverflowError",
    "ContrastiveResult",
    "Counts",
    "DownloadError",
    "DraftPass",
    "Drop",
    "ForceToken",
    "Generation",
    "GenerationResult",
    "MeanAblate",
    "ModelFileError",
    "ModelInfo",
    "ModelNotFoundError",
    "Patch",
    "PellucidError",
    "Perplexity",
    "QueueFullError",
    "Ranked",
    "Recorder",
    "Reranked",
    "Run",
    "RunFileError",
    "Sample",
    "SamplingParams",
    "Scale",
    "Score",
    "Scores",
    "SearchOutput",
    "SearchResult",
    "SessionFileError",
    "Setting",
    "Settings",
    "SpeculationCounts",
    "Steer",
    "Step",
    "StepRecord",
    "StochasticBeamResult",
    "Stream",
    "StringProbability",
    "TemplateError",
    "Timings",
    "TokenLogprobs",
    "Tokenizer",
    "ToolCall",
    "UnsupportedModelError",
    "UsageError",
    "Verification",
    "WeightedOutput",
    "ZeroAblate",
    "__version__",
    "inspect_model",
    "load_tokenizer",
    "locate",
    "read_run",
]

_HOMES = {
    "LLM": "llm",
    "AsyncLLM": "serving.async_llm",
    "AsyncStream": "serving.async_stream",
    "ChatSession": "chat.session",
    "ChatTurn": "chat.turn",
    "ToolCall": "text.answers.spans",
    **dict.fromkeys(("ChatAnswer", "ChatChunk"), "chat.answer"),
    "SamplingParams": "sampling.params",
    "Generation": "held.generation",
    **dict.fromkeys(("Candidate", "Step", "StepRecord"), "held.steps"),
    "Recorder": "front.recorder",
    "Run": "glass.run",
    "read_run": "glass.runfile",
    "Stream": "serving.stream",
    "Tokenizer": "text.tokenizer",
    "load_tokenizer": "text.tokenizer",
    "locate": "weights.locate",
    "Capture": "glass.flow",
    "Captured": "glass.captured",
    **dict.fromkeys(("ForceToken", "MeanAblate", "Patch", "Scale", "Steer", "ZeroAblate"), "glass.intervene"),
    "ModelInfo": "info",
    "inspect_model": "info",
    **dict.fromkeys(("Perplexity", "Score", "Scores", "StringProbability"), "scoring.results"),
    **dict.fromkeys(("Setting", "Settings"), "settings"),
    **dict.fromkeys(
        ("Alternative", "Chunk", "Counts", "Drop", "GenerationResult", "Sample", "Timings", "TokenLogprobs"),
        "outputs",
    ),
    **dict.fromkeys(("DraftPass", "SpeculationCounts"), "outputs"),
    **dict.fromkeys(("BeamResult", "StochasticBeamResult", "WeightedOutput"), "search.beams"),
    "ContrastiveResult": "search.contrastive",
    **dict.fromkeys(("Certificate", "Verification"), "search.certificate"),
    **dict.fromkeys(("Consensus", "Ranked", "Reranked"), "search.reranking"),
    **dict.fromkeys(("Bounds", "SearchOutput", "SearchResult"), "search.search"),
    **dict.fromkeys((name for name in __all__ if name.endswith("Error")), "errors"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(f"pellucid.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'pellucid' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    """The installed distribution's version; "unknown" where the package runs from a source tree only."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pellucid")
    except PackageNotFoundError:
        return "unknown"
