"""How far quantised arithmetic is from the same weights in float32: ours, and llama.cpp's on the same file.

    python bench/accuracy.py MODEL.gguf ... [--text FILE] [--tokens 4096] [--window 512] [--check FLOAT_FOLDER]

KL(reference || engine) in nats, mean over positions of consecutive windows of a text. The reference: the file's weights
dequantised (by the `gguf` package) into an F32 file, which pellucid runs with a float32 KV cache; --check prints how
far its logits are from transformers' own on the first window (a checkpoint as `pypeers.py` makes it; needs torch).
llama.cpp's logits come from a small program over its own library, compiled here the first time; its KV cache is in
float16 as by default. A file with matrices in BF16 is run with `activations="bf16"`, too.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gguf
import numpy as np

import llamacpp
import machine
from pellucid import LLM

HERE = Path(__file__).parent


def dequantised(source: Path, target: Path, *, bf16: bool = False) -> None:
    """The same file with every tensor in float32. bf16: its matrices in BF16."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        kind = field.types[0]
        more = {"sub_type": field.types[-1]} if kind == gguf.GGUFValueType.ARRAY else {}
        writer.add_key_value(key, field.contents(), kind, **more)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if bf16 and values.ndim > 1:
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(tensor.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def helper() -> Path:
    """The program that prints llama.cpp's logits."""
    llamacpp.find_or_build()
    peers = machine.peers_folder()
    build, program = peers / "llama.cpp-build", peers / "logits"
    source = HERE / "llama_logits.cc"
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    tree = llamacpp.fetch_source(peers)
    libraries = [build / "src" / "libllama.a", *sorted((build / "ggml" / "src").rglob("libggml*.a"))]
    includes = [f"-I{tree / 'include'}", f"-I{tree / 'ggml' / 'include'}"]
    group = ["-Wl,--start-group", *map(str, libraries), "-Wl,--end-group", "-fopenmp", "-ldl", "-pthread"]
    command = ["g++", "-O2", "-std=c++17", *includes, str(source), *group, "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def llama_logits(model: Path, windows: list[list[int]], vocabulary: int, scratch: Path) -> Any:
    """Yields float32 [tokens, vocabulary] for each window."""
    for index, ids in enumerate(windows):
        files = scratch / f"{index}.ids", scratch / f"{index}.logits"
        np.array(ids, np.int32).tofile(files[0])
        subprocess.run([str(helper()), str(model), *map(str, files)], check=True, stdout=subprocess.DEVNULL)
        yield np.fromfile(files[1], np.float32).reshape(len(ids), vocabulary)
        files[1].unlink()


def log_probabilities(logits: Any) -> Any:
    x = logits.astype(np.float64)
    x -= x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def compare(p: Any, q: Any, ids: list[int]) -> dict[str, Any]:
    """p, q: log-probabilities [tokens, vocabulary] of the reference and of another. Per position: KL(p || q) in nats,
    whether the most probable token is the same; and the loss of the next token under q less that under p."""
    following = np.array(ids[1:])
    rows = np.arange(len(following))
    return {
        "kl": (np.exp(p) * (p - q)).sum(1),
        "same": p.argmax(1) == q.argmax(1),
        "loss": p[rows, following] - q[rows, following],
    }


def line(name: str, parts: list[dict[str, Any]]) -> str:
    kl, same, loss = (np.concatenate([part[key] for part in parts]) for key in ("kl", "same", "loss"))
    cells = [f"{kl.mean():.6f}", f"{np.median(kl):.6f}", f"{np.percentile(kl, 99):.5f}", f"{kl.max():.3f}"]
    return "| " + " | ".join([name, *cells, f"{same.mean():.2%}", f"{loss.mean():+.5f}"]) + " |"


def check_reference(folder: Path, ids: list[int], ours: Any) -> str:
    """Largest difference from transformers' float32 logits, by the logits' own size."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
    with torch.inference_mode():
        theirs = model(torch.tensor([ids])).logits[0].numpy()
    return f"{np.abs(theirs - ours).max() / np.abs(theirs).max():.1e}"


def measure(model: Path, text: str, tokens: int, window: int, check: Path | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        dequantised(model, scratch / "f32.gguf")
        with (
            LLM(model, context_length=window) as ours,
            LLM(scratch / "f32.gguf", context_length=window, kv_format="f32") as reference,
            ExitStack() as more,
        ):
            engines = {"pellucid": ours}
            if "BF16" in ours.info.formats:
                rounding = LLM(model, context_length=window, activations="bf16")
                engines["pellucid, activations in bf16"] = more.enter_context(rounding)
            every = ours.tokenizer.encode(text)[:tokens]
            windows = [every[at : at + window] for at in range(0, len(every), window)]
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in (*engines, "llama.cpp")}
            theirs = llama_logits(model, windows, ours.tokenizer.vocabulary_size, scratch)
            for number, (ids, logits) in enumerate(zip(windows, theirs, strict=True)):
                exact = reference.logits(ids)
                if check and number == 0:
                    print(
                        f"reference against transformers: {check_reference(check, ids, exact)} of the largest"
                    )
                truth = log_probabilities(exact)
                for name, engine in engines.items():
                    found[name].append(compare(truth, log_probabilities(engine.logits(ids)), ids))
                found["llama.cpp"].append(compare(truth, log_probabilities(logits), ids))
                kl = [round(float(parts[-1]["kl"].mean()), 6) for parts in found.values()]
                print(f"{model.name} window {number + 1}/{len(windows)}: {kl}", file=sys.stderr, flush=True)
    print(f"\n{model.stem}, {len(every)} tokens in windows of {window}:\n")
    print("| engine | mean KL, nats | median | 99% | largest | same first choice | loss over float32's |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, parts in found.items():
        print(line(name, parts))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path)
    shared = HERE.parents[1] / "shared" / "data" / "text" / "wikitext2_test_head.txt"
    parser.add_argument("--text", type=Path, default=shared)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--check", type=Path, help="a float checkpoint of the same (one) model")
    arguments = parser.parse_args()
    for model in arguments.models:
        text = arguments.text.read_text(encoding="utf-8")
        measure(model, text, arguments.tokens, arguments.window, arguments.check)


if __name__ == "__main__":
    main()
