"""The playground's language: a closed, word-level vocabulary, its tokenizer and its chat template.

Words are separated by single spaces, punctuation too. A number is spelled digit by digit: "12" is `1 ##2` while "1 2"
is `1 2`, so both come back as they went in.
"""

from __future__ import annotations

from typing import Any

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", "<system>", "<user>", "<assistant>")
PAD, BOS, EOS, UNK = range(4)
ROLES = {"system": 4, "user": 5, "assistant": 6}
LETTERS = ("A", "B", "C", "D")
NAMES = ("mia", "tom", "ana", "ben", "eva", "leo")
GOODS = (("pen", "pens"), ("cup", "cups"), ("lamp", "lamps"), ("book", "books"), ("hat", "hats"))

_SIGNS = "+ - * / = . , ? ! : ; ( )"
_SHOP = (
    "store coin coins buys costs pay sells have has wants stay pack packs offer member members delivery day days hours "
    "week opens closes open returns return come comes free left more less enough last"
)
_GLUE = (
    "a the and or not no yes is are was it if in at on of for to with within over than every each all then now does do "
    "how many what which so"
)
_TALK = (
    "i you we my your me am that this think know sure really right wrong true better best worse same answer answers "
    "question reply choose letter only one two first second please again let us check step try perhaps maybe seems "
    "sorry thank great good excellent wonderful expert teacher agree mistake other both ignore say could should there "
    "hello nice very helpful"
)
CONTEXT_LENGTH = 512


def _vocabulary() -> tuple[str, ...]:
    digits = [str(digit) for digit in range(10)]
    goods = [word for pair in GOODS for word in pair]
    words = [*_SIGNS.split(), *LETTERS, *NAMES, *goods, *_SHOP.split(), *_GLUE.split(), *_TALK.split()]
    return tuple(dict.fromkeys([*SPECIAL, *digits, *(f"##{digit}" for digit in digits), *words]))


VOCABULARY = _vocabulary()
_IDS = {token: position for position, token in enumerate(VOCABULARY)}

CHAT_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('the playground knows the roles system, user and assistant') -}}"
    "{%- endif -%}"
    "{{- '<' + message['role'] + '> ' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + eos_token -}}{%- endgeneration -%}"
    "{%- else -%}{{- message['content'] -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<assistant> ' -}}{%- endif -%}"
)


def encode(text: str) -> list[int]:
    """Token ids of a text of the language; equal to the tokenizer's, and quicker for the millions the build needs."""
    ids: list[int] = []
    for word in text.split():
        known = _IDS.get(word)
        if known is None and word.isdecimal() and word.isascii():
            ids += [_IDS[word[0]], *(_IDS[f"##{digit}"] for digit in word[1:])]
        else:
            ids.append(UNK if known is None else known)
    return ids


def build_tokenizer() -> Any:
    """The transformers tokenizer of the language, chat template included; texts decode to exactly what was encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordPiece(dict(_IDS), unk_token="<unk>", max_input_chars_per_word=400))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<system>", "<user>", "<assistant>"],
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
