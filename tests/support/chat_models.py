"""Chat templates for tiny models, and a tiny model with one."""

from __future__ import annotations

import json
from pathlib import Path

from tiny_checkpoints import make

CHATML = (
    "{% if tools %}<|begin|>tools\n{% for t in tools %}{{ t | tojson }}{% endfor %}<|end|>\n{% endif %}"
    "{% for m in messages %}<|begin|>{{ m.role }}\n{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)
TRIMMED = CHATML.replace("{{ m.content or '' }}", "{{ (m.content or '') | trim }}")
REASONING = CHATML.replace("{{ m.content or '' }}", "{{ (m.content or '').split('</think>')[-1] }}")
PLAIN = (
    "{% for m in messages %}<|begin|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}<|begin|>assistant\n"
)
USER_ONLY = (
    "{% for m in messages if m.role in ('user', 'assistant') %}<|begin|>{{ m.content }}<|end|>{% endfor %}"
)
TEMPLATES = {"chatml": CHATML, "trimmed": TRIMMED, "reasoning": REASONING, "plain": PLAIN, "user": USER_ONLY}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "d",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def make_chat_model(folder: Path, template: str) -> Path:
    """A tiny llama with this one of the templates."""
    made = make(folder, "llama", "safetensors")
    config = json.loads((made / "tokenizer_config.json").read_text())
    changed = config | {"chat_template": TEMPLATES[template]}
    (made / "tokenizer_config.json").write_text(json.dumps(changed))
    return made
