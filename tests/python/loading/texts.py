"""Texts that tokenizers get wrong."""

TEXTS = [
    "",
    " ",
    "hello world",
    "  two  spaces   three    four\t\ttabs \n\n\n newlines\r\n  ",
    "def f(x):\n    return [x**2 for _ in range(10)]  # code\n\n\n\tpass\n",
    "I'm, you're, WE'LL; it's 3.14159 and 1,000,000 or 2024-12-31",
    "Größe naïve Ωmega 日本語 한국어 العربية עברית हिन्दी",
    "emoji 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 and ❤️",
    "e\u0301 (decomposed) \u00e9 (composed) \ufb01 \u2460 \u00bd \u0663",
    "zero\u200bwidth \u00a0 nbsp \u2028 line \ufeff bom \x00 nul \x7f",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><|im_start|>",
    "▁under ▁▁ bars <0x0A> <s> </s>",
    "a" * 300 + " " * 300 + "1" * 30,
]
