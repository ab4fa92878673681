"""Makes tests/data/golden/chat.json: conversations as transformers renders and encodes them.

    python tools/make_golden_chat.py

The tokenizer is a small byte-level BPE with Cohere's control tokens, BOS in front of a text, and a template of the same form
as Aya's. The file holds it too, so that the default tests need no transformers.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent.parent / "tests" / "data" / "golden" / "chat.json"

CONTROL = ("<PAD>", "<UNK>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>")
CONTROL += ("<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>")
TEMPLATE = """\
{{ bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'system' and not loop.first %}
        {{- raise_exception('a system message comes first') }}
    {%- endif %}
    {%- set role = {'user': 'USER', 'assistant': 'CHATBOT', 'system': 'SYSTEM'}[message['role']] %}
    {{- '<|START_OF_TURN_TOKEN|><|' ~ role ~ '_TOKEN|>' ~ message['content'].strip() ~ '<|END_OF_TURN_TOKEN|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}
"""
TEXTS = (
    "Hello, world!",
    "  spaces  and\nlines\t",
    "مرحبا بالعالم، كيف حالك؟",
    "नमस्ते दुनिया",
    "cafe\u0301 and café",
    "你好,世界 👩‍👩‍👧 12345",
    "שלום <b>bold</b> {{ not a template }}",
)
CONVERSATIONS = (
    [("user", TEXTS[0])],
    [("system", "Answer in one word."), ("user", TEXTS[2]), ("assistant", "جيد"), ("user", TEXTS[1])],
    [("user", TEXTS[3]), ("assistant", TEXTS[4]), ("user", TEXTS[5]), ("assistant", TEXTS[6])],
)


def write_tokenizer(directory: Path) -> None:
    """A tokenizer's directory, as Hugging Face lays it out."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=list(CONTROL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sorted(TEXTS) * 3, trainer)
    bos = "<BOS_TOKEN>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos}:0 $A:0", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    end = tokenizer.token_to_id("<|END_OF_TURN_TOKEN|>")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": "<EOS_TOKEN>",
        "pad_token": "<PAD>",
        "clean_up_tokenization_spaces": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [end]}))
    (directory / "chat_template.jinja").write_text(TEMPLATE)


def rendered(directory: Path) -> dict[str, Any]:
    """What transformers makes of the texts and conversations."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    cases = []
    for turns in CONVERSATIONS:
        messages = [{"role": role, "content": content} for role, content in turns]
        for prompt in (False, True):
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            ids = tokenizer.apply_chat_template(
                messages, tokenize=True, add_generation_prompt=prompt, return_dict=False
            )
            cases.append({"messages": messages, "add_generation_prompt": prompt, "text": text, "ids": list(ids)})
    files = {file.name: file.read_text(encoding="utf-8") for file in sorted(directory.iterdir())}
    return {"files": files, "texts": [list(tokenizer(text)["input_ids"]) for text in TEXTS], "conversations": cases}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        write_tokenizer(Path(scratch))
        GOLDEN.write_text(json.dumps(rendered(Path(scratch)), ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{GOLDEN}: {GOLDEN.stat().st_size:,} bytes")
