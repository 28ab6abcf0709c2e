"""The kinds of `tokenizer.ggml.pre`: into which words a BPE vocabulary's text is cut before merging.

Facts: llama.cpp's src/llama-vocab.cpp, and the `pre_tokenizer` of each model's own tokenizer.json, which decides
where the two differ (llama.cpp approximates a few character classes). Dialect of the patterns: native/text/pattern.h.
To add a kind, add a line to `_KINDS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PreTokenizer:
    """stages: each splits what the one before left: a pattern whose matches become words of their own (what lies
    between them too), or a digit rule of native/text/splitter.cc ("@...").
    ignore_merges: a word that is a piece is taken whole. adds_bos: where the file does not say.
    plain: pieces are UTF-8 with U+2581 for a space, not the byte-level alphabet.
    newline_words: a word of newlines that is a piece is taken whole.
    """

    stages: tuple[str, ...]
    ignore_merges: bool = False
    adds_bos: bool = False
    plain: bool = False
    newline_words: bool = False
    names: tuple[str, ...] = field(default=(), compare=False)


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"


def _cased(suffix: str, numbers: str, symbols_end: str, but: str = "") -> str:
    """Words of one case or with a capital first: the o200k family."""
    upper, lower = f"[{_UPPER}{but}]", f"[{_LOWER}{but}]"
    lead = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{lead}{upper}*{lower}+{suffix}|{lead}{upper}+{lower}*{suffix}|{numbers}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+{symbols_end}|{_SPACES}"
    )


_GPT4O = _cased(_CONTRACTIONS + "?", r"\p{N}{1,3}", r"[\r\n/]*")
_TEKKEN = _cased("", r"\p{N}", r"[\r\n/]*")
_KIMI_K2 = r"\p{Han}+|" + _cased(_CONTRACTIONS + "?", r"\p{N}{1,3}", r"[\r\n]*", r"&&[^\p{Han}]")
_ASCII_SYMBOL_WORD = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
_DEEPSEEK3 = (
    rf"{_ASCII_SYMBOL_WORD}|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
)
_CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_CJK_HANGUL = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"

# Cased letters, as DeepSeek's tokenizer.json lists them.
_CASED_RANGES = """
41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F 386 388-38A 38C 38E-3A1
3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B 1D6B-1D77 1D79-1D9A
1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4
1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124 2126 2128
212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183 2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2 2CF3 A640-A66D
A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3
104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943
"""


def _ranges(table: str) -> str:
    ends = [entry.split("-") for entry in table.split()]
    return "".join("-".join(chr(int(end, 16)) for end in entry) for entry in ends)


_DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{_ranges(_CASED_RANGES)}]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    _CJK_HANGUL,
    r"\p{N}+",
)
_AFMOE_SCRIPTS = _ranges(
    "4E00-9FFF 3400-4DBF F900-FAFF 3040-309F 30A0-30FF FF65-FF9F 2F00-2FDF E40-E7F E80-EFF 1780-17FF 1000-109F "
    "AA60-AA7F A9E0-A9FF AC00-D7AF 1100-11FF"
)
_YOUTU_SCRIPTS = "|".join(
    f"[{_ranges(table)}]+"
    for table in (
        "AC00-D7A3 3131-318E",
        "FF01 2026 201C 201D 2018 2019 2014 FF1A FF1B FF0C 3001-303F FE30-FE4F",
        "3105-312F",
        "4E00-9FA5 3040-309F 30A0-30FF",
    )
)
_JAIS2_SPACES = "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4))

_KINDS = (
    # Where the file names no kind, or "default".
    PreTokenizer((r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"), names=("default",)),
    PreTokenizer(
        (_GPT2,),
        names=(
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "gigachat",
            "jina-v2-es",
            "jina-v2-de",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "jina-v1-en",
            "jina-v2-code",
            "roberta-bpe",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
        ),
    ),
    PreTokenizer(
        (r"\p{N}", _GPT2),
        names=("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"),
    ),
    PreTokenizer(
        (_LLAMA3,),
        ignore_merges=True,
        adds_bos=True,
        names=(
            "llama3",
            "llama-v3",
            "llama-bpe",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ),
    ),
    PreTokenizer((_LLAMA3,), names=("dbrx", "smaug-bpe", "chatglm-bpe")),
    PreTokenizer((_LLAMA3,), ignore_merges=True, names=("glm4", "glm5")),
    PreTokenizer(
        (_LLAMA3.replace(r"|\s+(?!\S)|\s+", rf"|{_JAIS2_SPACES}|\s{{1,2}}(?!\S)|\s{{1}}"),), names=("jais-2",)
    ),
    PreTokenizer(
        (_QWEN2,),
        names=(
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "stablelm2",
            "hunyuan",
            "megrez",
            "solar-open",
            "grok-2",
        ),
    ),
    PreTokenizer((_QWEN35,), names=("qwen35",)),
    PreTokenizer((_QWEN2.removeprefix(_CONTRACTIONS + "|"),), names=("ufakzeka",)),
    PreTokenizer((r"[^\n]+|[\n]+", _QWEN2), names=("laguna",)),
    PreTokenizer(
        (r"\p{N}{1,3}", _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}+")), ignore_merges=True, names=("minicpm5",)
    ),
    PreTokenizer(_DEEPSEEK_LLM, names=("deepseek-llm",)),
    PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK_HANGUL, r"\p{N}"), names=("deepseek-coder",)),
    PreTokenizer(
        (r"\p{N}{1,3}", _CJK, _DEEPSEEK3), names=("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4")
    ),
    PreTokenizer(
        (
            r"\p{N}{1,3}",
            _CJK,
            _DEEPSEEK3.replace(r"[\r\n]*", "").replace(r"\s*[\r\n]+", r"[\r\n]"),
            r"\p{N}",
        ),
        names=("spark2_5",),
    ),
    PreTokenizer(("@numbers-by-thousands", f"[{_AFMOE_SCRIPTS}]+", _DEEPSEEK3), names=("afmoe",)),
    PreTokenizer((r"[\p{P}$+<=>^~|`]+", _GPT2, "[0-9][0-9][0-9]"), names=("falcon",)),
    PreTokenizer((_BLOOM,), names=("poro-chat", "bloom", "gpt3-finnish")),
    PreTokenizer((_BLOOM, r"\p{N}"), names=("viking",)),
    PreTokenizer((_TEKKEN,), ignore_merges=True, adds_bos=True, names=("tekken",)),
    PreTokenizer((_GPT4O,), names=("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2")),
    PreTokenizer((_GPT4O,), ignore_merges=True, names=("granite-embed-multi-97m",)),
    PreTokenizer(("@digits-by-thousands-at-boundary", _GPT4O), names=("tiny_aya", "cohere2moe")),
    PreTokenizer(
        (_YOUTU_SCRIPTS, _cased(_CONTRACTIONS + "?", r"\p{N}", r"[\r\n/]*")),
        ignore_merges=True,
        names=("youtu",),
    ),
    PreTokenizer((_KIMI_K2,), names=("kimi-k2",)),
    PreTokenizer((r"\p{N}+", "@digits-by-thousands"), names=("superbpe",)),
    PreTokenizer(
        (
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]"
            r"|\s+(?!\S)|\s+",
        ),
        names=("bailingmoe", "bailingmoe2", "llada-moe"),
    ),
    PreTokenizer(
        (_QWEN2.replace(r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}\r\n]+"),), names=("seed-coder",)
    ),
    PreTokenizer(
        (
            # Of the original, (?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+: the same words, said without nested repeats.
            rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}[\p{{L}}\p{{M}}]*(?: \p{{L}}[\p{{L}}\p{{M}}]*)*"
            r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        ),
        names=("exaone-moe",),
    ),
    PreTokenizer(
        (
            "<sentinel:[0-9]+>",
            "IMGIMG[A-I]{1,4}Z",
            r"[\t\n]|    |  ",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            _GPT2,
        ),
        adds_bos=True,
        names=("chameleon",),
    ),
    PreTokenizer(
        (r"[^\n]+|[\n]+",),
        adds_bos=True,
        plain=True,
        newline_words=True,
        names=("gemma4", "granite-embed-multi-311m"),
    ),
    PreTokenizer((r"[^\n]+|[\n]+",), plain=True, names=("sarvam-moe",)),
)

pretokenizers: dict[str, PreTokenizer] = {name: kind for kind in _KINDS for name in kind.names}
