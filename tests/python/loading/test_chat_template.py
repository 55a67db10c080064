"""Chat templates against Transformers' renderer, and against templates that mean harm."""

from __future__ import annotations

import resource
import time
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from medusa_native.chat_template import ChatTemplate
from medusa_native.errors import InvalidArgument, MedusaError, ModelFormatError

VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}
CHATS = [
    [{"role": "user", "content": " hi \n"}],
    [
        {"role": "system", "content": "<b>é\u2028</b>"},
        {"role": "user", "content": "q {{ x }} {% y %}"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"},
        {"role": "user", "content": ""},
    ],
]
TEMPLATES = {
    "chatml": (
        "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nX<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + m['role'] + '\n' +"
        " m['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "llama2": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system_message = messages[0]['content'] %}{% else %}"
        "{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
        "{% for message in loop_messages %}"
        "{% if loop.index0 == 0 and system_message != false %}"
        "{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}"
        "{% else %}{% set content = message['content'] %}{% endif %}"
        "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}"
        "{% endif %}{% endfor %}"
    ),
    "llama3": (
        "{{- bos_token }}\n{%- if not date_string is defined %}\n"
        "    {%- set date_string = '26 Jul 2024' %}\n{%- endif %}\n"
        "{%- if not tools is defined %}{%- set tools = none %}{%- endif %}\n"
        "{{- 'Today Date: ' + date_string + '\\n\\n' }}\n"
        "{%- for message in messages %}\n"
        "    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}\n"
        "        {{- message['role'] + '\\n\\n' + message['content'] | trim + '<|eot_id|>' }}\n"
        "    {%- endif %}\n{%- endfor %}\n"
        "{%- if tools is not none %}{{- tools | tojson(indent=4) }}{%- endif %}"
    ),
    "qwen3": (
        "{%- set ns = namespace(many=true, last=messages|length - 1) %}\n"
        "{%- for message in messages[::-1] %}\n"
        "    {%- set index = (messages|length - 1) - loop.index0 %}\n"
        "    {%- if ns.many and message.role == 'user' and message.content is string and"
        " not message.content.startswith('<tool_response>') %}\n"
        "        {%- set ns.many = false %}{%- set ns.last = index %}\n"
        "    {%- endif %}\n{%- endfor %}\n"
        "{%- for message in messages %}\n    {%- set content = message.content %}\n"
        "    {%- if '</think>' in content %}\n"
        "        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n"
        "    {%- endif %}\n"
        "    {{- message.role ~ loop.index0 ~ ':' ~ content.replace('e', 'E') + '\\n' }}\n"
        "{%- endfor %}{{ ns.last }}"
    ),
    "marks for training": (
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    ),
    "loop controls, macros, filters": (
        "{% macro show(m) %}[{{ m.role|upper }}:{{ m|tojson }}]{% endmacro %}"
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
        "{{ show(m) }}{% if loop.last %}{% break %}{% endif %}{% endfor %}"
        "{{ messages|map(attribute='role')|join(', ') }}{{ messages|selectattr('role','equalto',"
        "'user')|list|length }}{{ ['b','a']|sort|first }}{{ {'k': (1, 2)} }}{{ 'a\nb'|indent(2) }}"
        "{{ dict(a=1).items()|list }}{{ 2.567|round(1) }}{{ ' x '|trim }}{{ 'x' * 3 }}{{ 7 % 4 }}"
    ),
}


@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_equal_to_transformers(name: str, chat: list[dict[str, Any]], prompt: bool) -> None:
    rendered, _ = render_jinja_template(
        conversations=[chat],
        chat_template=TEMPLATES[name],
        add_generation_prompt=prompt,
        **VARIABLES,
    )
    assert ChatTemplate(TEMPLATES[name], VARIABLES).render(chat, prompt) == rendered[0]


def test_a_refusal_reaches_the_user() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}", {})
    with pytest.raises(InvalidArgument, match="roles must alternate"):
        template.render(CHATS[0], True)


def test_the_date_is_known() -> None:
    assert ChatTemplate("{{ strftime_now('%Y') }}", {}).render([], True) == time.strftime("%Y")


GROW = "{% set ns = namespace(x=START) %}{% for i in range(60) %}{% set ns.x = STEP %}{% endfor %}"
X = "x" * 100_000
HOSTILE = {
    "rounds": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "output": "{% for i in range(99999) %}{% for j in range(99) %}" + X[:99] + "{% endfor %}{% endfor %}",
    "macro output": "{% macro m() %}{% for i in range(99999) %}" + X + "{% endfor %}{% endmacro %}{{ m() }}",
    "macro constants": "{% macro m() %}{% for i in range(99999) %}{{ '" + X + "' }}{% endfor %}{% endmacro %}{{ m()|length }}",
    "macro recursion": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "recursive loop": "{% for x in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "repetition": "{{ 'a' * 10000000000 }}",
    "list repetition": "{{ [1] * 10000000000 }}",
    "power": "{{ 10 ** 10 ** 10 }}",
    "squares": GROW.replace("START", "3").replace("STEP", "ns.x * ns.x"),
    "center": "{{ 'a'|center(10000000000) }}",
    "format filter": "{{ '%10000000000d'|format(1) }}",
    "percent": "{{ '%10000000000d' % 1 }}",
    "format": "{{ '{:>10000000000}'.format(1) }}",
    "ljust": "{{ 'a'.ljust(10000000000) }}",
    "round": "{{ 1.5|round(1000000000, 'ceil') }}",
    "concatenation": GROW.replace("START", "'aaaa'").replace("STEP", "ns.x ~ ns.x"),
    "addition": GROW.replace("START", "'aaaa'").replace("STEP", "ns.x + ns.x"),
    "set block": "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}"
    "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
    "nested lists": GROW.replace("START", "[1]").replace("STEP", "[ns.x, ns.x]") + "{{ ns.x }}",
    "nested tuples": GROW.replace("START", "[1]").replace("STEP", "(ns.x, ns.x)") + "{{ ns.x }}",
    "nested dicts": GROW.replace("START", "[1]").replace("STEP", "dict(a=ns.x, b=ns.x)"),
    "namespace in itself": "{% set a = namespace() %}{% set a.x = a %}{{ a }}",
    "replace method": GROW.replace("START", "'aaaa'").replace("STEP", "ns.x.replace('a', ns.x)"),
    "replace filter": GROW.replace("START", "'aaaa'").replace("STEP", "ns.x|replace('a', ns.x)"),
    "join method": GROW.replace("START", "'aaaa'").replace("STEP", "ns.x.join([ns.x, ns.x])"),
    "join filter": GROW.replace("START", "'aaaa'").replace("STEP", "[ns.x, ns.x]|join(ns.x)"),
    "collecting": "{{ range(99999)|map('string')|map('replace', '1', '" + X[:9999] + "')|list|length }}",
    "classes": "{{ ().__class__.__base__.__subclasses__() }}",
    "attr": "{{ ''|attr('__class__') }}",
    "import": "{% import 'os' as os %}",
    "include": "{% include '/etc/passwd' %}",
    "mutation": "{{ messages.append(1) }}",
    "depth": "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "size": "x" * (1 << 21),
    "unfinished": "{% if %}",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_harm_is_an_error(name: str) -> None:
    start, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MedusaError, match="chat template"):
        ChatTemplate(HOSTILE[name], {}).render(CHATS[0], True)
    assert time.process_time() - start < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300 << 10  # KiB


@pytest.mark.parametrize("name", ["messages.__class__", "raise_exception.__globals__"])
def test_internals_are_undefined(name: str) -> None:
    assert ChatTemplate("{{ " + name + " }}", {}).render(CHATS[0], True) == ""
    with pytest.raises(InvalidArgument, match="unsafe"):
        ChatTemplate("{{ " + name + ".x }}", {}).render(CHATS[0], True)


def test_a_broken_template_is_a_format_error() -> None:
    with pytest.raises(ModelFormatError, match="chat template"):
        ChatTemplate("{% for", {})
