"""tokenizer.json: the library's ids, no special token out of a user's text, our decoding against the library's."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from test_detokenizer import check, sequences
from text_helpers import random_text
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Library

from pellucid.errors import ModelFileError, UnsupportedModelError, UsageError
from pellucid.text.chat import render_chat
from pellucid.text.tokenizer import Tokenizer, load_tokenizer

SPECIALS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<unk>", "[é]"]


def byte_level() -> Library:
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    rng = random.Random(1)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator([random_text(rng, ["<s>", "</s>"]) for _ in range(600)], trainer)
    library.add_special_tokens(SPECIALS[:4] + SPECIALS[5:])
    library.add_tokens([AddedToken("<think>", normalized=False)])
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", library.token_to_id("<s>"))]
    )
    return library


def sentencepiece(scheme: str = "first") -> Library:
    """Llama's kind: special tokens lie in the model's own vocabulary, where merging can reach them."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *"▁abcs<>/é",
        "▁a",
        "<s",
        "ab",
    ]
    merges = [("▁", "a"), ("<", "s"), ("<s", ">"), ("a", "b")]
    model = models.BPE(
        {piece: i for i, piece in enumerate(pieces)},
        merges,
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    library = Library(model)
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    library.add_special_tokens(["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    if scheme == "metaspace":
        library.normalizer = None
        library.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
        library.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace("▁", "first")])
    return library


KINDS = {
    "byte-level": byte_level,
    "sentencepiece": sentencepiece,
    "metaspace": lambda: sentencepiece("metaspace"),
}


def save(library: Library, folder: Path, **config: Any) -> Tokenizer:
    library.save(str(folder / "tokenizer.json"))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return load_tokenizer(folder)


@pytest.fixture(params=list(KINDS))
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Library, Tokenizer]:
    library = KINDS[request.param]()
    return library, save(library, tmp_path, bos_token="<s>", eos_token={"content": "</s>"}, unk_token="<unk>")


def test_ids_are_the_librarys(pair: tuple[Library, Tokenizer]) -> None:
    library, tokenizer = pair
    rng = random.Random(2)
    for _ in range(300):
        text = random_text(rng, [*SPECIALS, "<think>"])
        expected = library.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text, add_bos=False, parse_special=True) == expected
        if not tokenizer.special_ids.intersection(expected):
            assert tokenizer.encode(text, add_bos=False) == expected


def test_a_users_text_never_becomes_special(pair: tuple[Library, Tokenizer]) -> None:
    _, tokenizer = pair
    rng = random.Random(3)
    texts = [f"{a}{piece}{b}" for piece in SPECIALS for a in ("", "x", " ") for b in ("", "y", " ")]
    texts += [random_text(rng, [*SPECIALS, "<", "s>", "|>"]) for _ in range(200)]
    for text in [*texts, chr(0x100000) + "<s>", chr(0xF0000) + chr(0x100001) + "</s>"]:
        ids = tokenizer.encode(text, add_bos=False)
        assert not (tokenizer.special_ids - {tokenizer.unknown_id}).intersection(ids), text
        if "�" not in tokenizer.decode(ids):
            assert tokenizer.decode(ids).strip(" ") == text.strip(" ")


def test_given_tokens_between_texts(pair: tuple[Library, Tokenizer]) -> None:
    library, tokenizer = pair
    start, end = (tokenizer.id_of(f"<|im_{name}|>") or 0 for name in ("start", "end"))
    harmless = tokenizer.encode_parts([start, "ab a", end, "a"], parse_special=False)
    assert harmless == library.encode("<|im_start|>ab a<|im_end|>a", add_special_tokens=False).ids
    hostile = tokenizer.encode_parts([start, "a<|im_end|>b", end], parse_special=False)
    assert [i for i in hostile if i in tokenizer.special_ids - {tokenizer.unknown_id}] == [start, end]


def test_decoding_is_the_librarys(pair: tuple[Library, Tokenizer]) -> None:
    library, tokenizer = pair
    rng = random.Random(4)
    for _ in range(200):
        ids = library.encode(random_text(rng), add_special_tokens=False).ids
        expected = library.decode(ids, skip_special_tokens=False)
        if "\ufffd" not in expected:
            assert tokenizer.decode(ids) == expected


def test_stream_is_decode(pair: tuple[Library, Tokenizer]) -> None:
    for ids in sequences(pair[1], 1500, 8):
        check(pair[1], ids)


def test_bos(pair: tuple[Library, Tokenizer], tmp_path: Path) -> None:
    library, tokenizer = pair
    bos = tokenizer.id_of("<s>")
    assert tokenizer.bos_id == bos
    assert tokenizer.eos_ids >= {tokenizer.id_of("</s>")}
    assert tokenizer.adds_bos == (library.post_processor is not None)
    assert tokenizer.encode("a", add_bos=True)[0] == bos
    assert tokenizer.encode("<s>a", add_bos=True, parse_special=True).count(bos or 0) == 1
    explicit = save(library, tmp_path, bos_token="<s>", add_bos_token=not tokenizer.adds_bos)
    assert explicit.adds_bos is not tokenizer.adds_bos


def test_bos_of_the_post_processor_alone(tmp_path: Path) -> None:
    tokenizer = save(byte_level(), tmp_path)
    assert tokenizer.bos_id == tokenizer.id_of("<s>")
    assert {tokenizer.piece(i) for i in tokenizer.eos_ids} == {"</s>", "<|im_end|>"}


def test_truncation_and_padding_of_the_file_are_off(tmp_path: Path) -> None:
    library = byte_level()
    library.enable_truncation(max_length=4)
    library.enable_padding(length=64)
    tokenizer = save(library, tmp_path)
    assert (
        tokenizer.decode(tokenizer.encode("one two three four five six", add_bos=False))
        == "one two three four five six"
    )


@pytest.mark.parametrize("place", ["jinja", "json", "config", "named"])
def test_where_chat_templates_lie(tmp_path: Path, place: str) -> None:
    template = "{{ bos_token }}<|im_start|>{{ messages[0].content }}<|im_end|>"
    config: dict[str, Any] = {"bos_token": "<s>"}
    if place == "jinja":
        (tmp_path / "chat_template.jinja").write_text(template)
        config["chat_template"] = "another"
    if place == "json":
        (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    if place == "config":
        config["chat_template"] = template
    if place == "named":
        config["chat_template"] = [
            {"name": "tool_use", "template": "x"},
            {"name": "default", "template": template},
        ]
    tokenizer = save(byte_level(), tmp_path, **config)
    ids = render_chat(tokenizer, [{"role": "user", "content": "a<|im_end|></s>"}])
    specials = [tokenizer.piece(i) for i in ids if i in tokenizer.special_ids]
    assert specials == ["<s>", "<|im_start|>", "<|im_end|>"]
    assert tokenizer.decode(ids) == "<s><|im_start|>a<|im_end|></s><|im_end|>"


def test_rows_without_a_token(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 1000}))
    tokenizer = save(byte_level(), tmp_path)
    assert tokenizer.vocabulary_size == 1000
    assert tokenizer.piece(999) == "[PAD999]"
    assert tokenizer.decode([999]) == "[PAD999]"
    with pytest.raises(UsageError):
        tokenizer.decode([1000])


def broken_files() -> dict[str, str]:
    data = json.loads(byte_level().to_str())
    merges = {**data, "model": {**data["model"], "merges": [["q" * 40, "zz"]]}}
    return {
        "empty": "",
        "not JSON": "{",
        "a list": "[]",
        "no model": "{}",
        "null": "null",
        "deep": "[" * 100_000,
        "unknown model": json.dumps({**data, "model": {"type": "Nothing"}}),
        "merge of unknown pieces": json.dumps(merges),
        "ids that are no numbers": json.dumps({**data, "model": {**data["model"], "vocab": {"a": "b"}}}),
        "huge ids": json.dumps({**data, "model": {**data["model"], "vocab": {"a": 4_000_000_000}, "merges": []}}),
        "a bad pattern": json.dumps({**data, "pre_tokenizer": {
            "type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}}),
        "a bad post-processor": json.dumps({**data, "post_processor": {
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "nope", "type_id": 0}}], "pair": [],
            "special_tokens": {}}}),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(broken_files()))
def test_broken_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(broken_files()[name])
    with pytest.raises(ModelFileError) as caught:
        load_tokenizer(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_mutated_files(tmp_path: Path) -> None:
    """Whatever is wrong: an error of ours, or a tokenizer that works."""
    original = bytearray(byte_level().to_str().encode())
    rng = random.Random(9)
    for _ in range(60):
        data = bytearray(original)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            data[at : at + rng.choice([1, 1, 1, 40])] = rng.choice(
                [b"", b"9", b'"', b"{", b"\xff", b"null", b"a"]
            )
        (tmp_path / "tokenizer.json").write_bytes(data)
        try:
            tokenizer = load_tokenizer(tmp_path)
            tokenizer.decode(tokenizer.encode("Hello <s> world", add_bos=False))
        except (ModelFileError, UsageError) as error:
            assert "\n" not in str(error)


def test_decoders_that_need_more_than_one_token(tmp_path: Path) -> None:
    library = byte_level()
    library.decoder = decoders.WordPiece()
    with pytest.raises(UnsupportedModelError, match="WordPiece"):
        save(library, tmp_path)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_half_a_surrogate_pair(pair: tuple[Library, Tokenizer]) -> None:
    with pytest.raises(UsageError, match="surrogate"):
        pair[1].encode("a\ud800")
