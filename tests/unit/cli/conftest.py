from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama in GGUF with a byte-level BPE vocabulary of 320 tokens (0: BOS, 1: EOS), no chat template."""
    from tiny_checkpoints import make

    return make(tmp_path_factory.mktemp("cli"), "llama", "gguf", "F32")


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a Hub directory, with a chat template and the author's sampling values."""
    import json

    from tiny_checkpoints import make

    folder = make(tmp_path_factory.mktemp("cli"), "llama", "safetensors")
    template = (
        "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    advice = {"bos_token_id": 0, "eos_token_id": 1, "do_sample": True, "temperature": 0.6, "top_k": 20}
    (folder / "generation_config.json").write_text(json.dumps(advice))
    return folder


@pytest.fixture
def invoke():
    """Runs the group in this process: result.stdout, result.stderr, result.exit_code."""
    from pellucid.cli.main import main

    try:
        runner = CliRunner(mix_stderr=False)  # click before 8.2
    except TypeError:
        runner = CliRunner()

    def run(*args: object, stdin: str | bytes | None = None, **env: str):
        return runner.invoke(main, [str(arg) for arg in args], input=stdin, env=env, prog_name="pellucid")

    return run
