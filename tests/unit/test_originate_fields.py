"""A request's values as AMI fields: nothing breaks out, nothing is changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.originate import (
    AMI_LINE_MAX_BYTES,
    dial_string,
    fits_ami_line,
    variable_line,
)

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
values = st.text(
    st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from('\\",()[]='), max_size=80
)


def read_by_asterisk(line: str) -> list[str]:
    """The arguments that Asterisk 16 and 22 make of a Variable value (main/app.c, `argsep`)."""
    arguments, current = [], ""
    brackets = parens = 0
    quoted = escaped = False
    for char in line:
        if escaped:
            current, escaped = current + char, False
        elif char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == "," and not (brackets or parens or quoted):
            arguments.append(current)
            current = ""
        else:
            brackets += (char == "[") - (char == "]" and brackets > 0)
            parens += (char == "(") - (char == ")" and parens > 0)
            current += char
    return [*arguments, current]


@given(names, values)
def test_a_variable_arrives_as_it_was_given_and_as_one(name: str, value: str) -> None:
    assert read_by_asterisk(variable_line(name, value)) == [f"{name}={value}"]


def test_a_comma_a_quote_and_a_bracket_are_plain_characters() -> None:
    assert variable_line("A", 'x,y="(z)[0]\\') == 'A=x\\,y=\\"\\(z\\)\\[0\\]\\\\'


def test_a_dial_string_is_the_template_with_the_number() -> None:
    assert dial_string("PJSIP/{number}@tim", "+5511987654321") == "PJSIP/+5511987654321@tim"
    assert dial_string("SIP/tim/{number}", "190") == "SIP/tim/190"


@given(names, values)
def test_what_fits_is_never_cut_by_asterisk(name: str, value: str) -> None:
    line = f"Variable: {variable_line(name, value)}\r\n".encode()
    if fits_ami_line(name, value):
        assert len(line) <= 1024


def test_the_escaped_length_in_bytes_decides_what_fits() -> None:
    room = AMI_LINE_MAX_BYTES - len("Variable: A=")
    assert fits_ami_line("A", "x" * room)
    assert not fits_ami_line("A", "x" * (room + 1))
    assert fits_ami_line("A", "," * (room // 2))
    assert not fits_ami_line("A", "," * (room // 2 + 1))
    assert not fits_ami_line("A", "ç" * (room // 2 + 1))
