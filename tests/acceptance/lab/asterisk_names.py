"""Generator of `dialer/domain/asterisk_names.py`: variable names with a meaning in Asterisk.

    python -m tests.acceptance.lab.asterisk_names             write the file
    python -m tests.acceptance.lab.asterisk_names --check     fail if it is out of date

Reads the lab's images of Asterisk 16 and 22 (`docker compose ... build`). Needs `objdump` and
`readelf` of binutils; takes about 15 s. A name is listed if, in one of the two versions,

- machine code loads it shortly before a call to one of `READERS`, or inside one of them;
- machine code loads it just after a call to `ast_var_name`, to compare it with each variable;
- the program or a module has it in a format of `NAME=value` pairs, or as `${NAME}`;
- the XML documentation that `core show application` prints has it as a variable or as `${NAME}`.

A format such as `ARG%d` or `SLA_%s`, in a module that calls a reader, gives a family: `ARG#` is
ARG and digits, `SLA_*` is every name with that prefix. `FAMILIES` adds whole modules.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

IMAGES: Final = ("multcall-asterisk:16", "multcall-asterisk:22")
TARGET: Final = Path(__file__).resolve().parents[3] / "dialer" / "domain" / "asterisk_names.py"

#: Prefixes of modules that read or set variables under names of their own. Some modules
#: (chan_sip, chan_dahdi, chan_misdn, app_meetme) are missing from one image or both, and a site
#: may have them.
FAMILIES: Final = """
CDR* CEL* DAHDI* DIALER_* DYNAMIC_* GOSUB_* IAX* LIMIT_* MACRO_* MEETME* MISDN* MIXMONITOR_*
MONITOR_* MVM_* PJSIP* QUEUE_* SIP* SS7_* TOUCH_* VM_*
"""

#: Functions of Asterisk that take the name of a channel variable.
READERS: Final = frozenset(
    {
        "ast_str_retrieve_variable",
        "ast_var_assign",
        "pbx_builtin_getvar_helper",
        "pbx_builtin_pushvar_helper",
        "pbx_builtin_setvar_helper",
        "pbx_find_variable",
        "pbx_retrieve_variable",
    }
)

#: A name is loaded at most this many instructions before the call that takes it.
WINDOW: Final = 14

#: Instructions after `ast_var_name` in which the name is loaded that it is compared with.
COMPARED_WITHIN: Final = 4

_HEAD: Final = '''"""Names of variables to which Asterisk 16 or 22 gives a meaning. Generated.

`python -m tests.acceptance.lab.asterisk_names` writes this file, and documents how.
In capital letters; `SIP*` is a family with that prefix, `ARG#` is ARG and digits.
"""

from typing import Final

ASTERISK_NAMES: Final = """
'''
_TAIL: Final = '"""\n'

_FUNCTION: Final = re.compile(r"^[0-9a-f]+ <([A-Za-z0-9_]+)")
_CALL: Final = re.compile(r"\b(?:call|jmp)\s+\S+\s+<([A-Za-z0-9_]+)")
_LOAD: Final = re.compile(r"\blea\s.*#\s([0-9a-f]+)")
_SECTION: Final = re.compile(
    r"\]\s+\.rodata\S*\s+PROGBITS\s+([0-9a-f]+)\s+([0-9a-f]+)\s+([0-9a-f]+)"
)
_NAME: Final = re.compile(r"_*([A-Z][A-Za-z0-9_]{2,79})")
_PAIR: Final = re.compile(r"(?:^|,)_*([A-Z][A-Z0-9_]{2,79})=(?=[%,]|$)")
_SUBSTITUTED: Final = re.compile(r"\$\{_*([A-Z][A-Z0-9_]{2,79})[}:]")
_COMPLETED: Final = re.compile(r"([A-Z][A-Z0-9_]{2,79})%([dus])")
_DOCUMENTED: Final = re.compile(r'<variable name="_*([A-Z][A-Z0-9_]{2,79})"')


def names_in(root: Path) -> set[str]:
    """The names of one version, whose files lie under `root`."""
    found: set[str] = set()
    for file in sorted(root.rglob("*")):
        if file.name == "core-en_US.xml":
            text = file.read_text(encoding="utf-8")
            found.update(_DOCUMENTED.findall(text), _SUBSTITUTED.findall(text))
        elif file.name == "asterisk" or file.suffix == ".so":
            found |= _of_program(file) if file.is_file() else set()
    return {name.upper() for name in found}


def _of_program(file: Path) -> set[str]:
    """The names that one program or module reads, sets or substitutes."""
    image = file.read_bytes()
    strings = [s.decode() for s in re.findall(rb"[\x20-\x7e]{3,}(?=\x00)", image)]
    loaded = set(_loaded(file, image))
    found = {match[1] for text in loaded if (match := _NAME.fullmatch(text))}
    for text in strings:
        found.update(_SUBSTITUTED.findall(text))
    if loaded:
        for text in strings:
            found.update(_PAIR.findall(text))
            if match := _COMPLETED.match(text):
                found.add(match[1] + ("*" if match[2] == "s" else "#"))
    return found


def _loaded(file: Path, image: bytes) -> Iterator[str]:
    """Strings loaded just before a call to a reader, inside one, or after `ast_var_name`."""
    sections = [
        tuple(int(number, 16) for number in match)
        for match in _SECTION.findall(_output("readelf", "-SW", str(file)))
    ]

    def string_at(address: int) -> str:
        for start, offset, size in sections:
            if start <= address < start + size:
                begin = offset + address - start
                return image[begin : image.index(0, begin)].decode("ascii", "replace")
        return ""

    recent: deque[int | None] = deque(maxlen=WINDOW)
    function = ""
    compares = 0
    for line in _output("objdump", "-d", "--no-show-raw-insn", str(file)).splitlines():
        if begins := _FUNCTION.match(line):
            function = begins[1]
            recent.clear()
            continue
        load, call = _LOAD.search(line), _CALL.search(line)
        recent.append(int(load[1], 16) if load else None)
        if load and (function in READERS or compares > 0):
            yield string_at(int(load[1], 16))
        compares = COMPARED_WITHIN if call and call[1] == "ast_var_name" else compares - 1
        if call and call[1] in READERS:
            yield from (string_at(address) for address in recent if address is not None)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _unpack(image: str, root: Path) -> None:
    """Copies the program, its modules and its documentation out of an image."""
    parts = "usr/sbin/asterisk usr/share/asterisk/documentation"
    tar = f"cd / && tar -chf - {parts} $(ls -d usr/lib/asterisk usr/lib/*/asterisk 2>/dev/null)"
    run = ["docker", "run", "--rm", "--user", "0", "--entrypoint", "sh", image, "-c", tar]
    with subprocess.Popen(run, stdout=subprocess.PIPE) as packed:
        subprocess.run(["tar", "-xf", "-", "-C", str(root)], check=True, stdin=packed.stdout)
    if packed.returncode:
        raise SystemExit(f"{image} cannot be read; build it with the lab's compose.yml")


def module_text() -> str:
    """The text of the generated module."""
    names = set(FAMILIES.split())
    for image in IMAGES:
        with tempfile.TemporaryDirectory() as folder:
            _unpack(image, Path(folder))
            names |= names_in(Path(folder))
    return _HEAD + "".join(f"{name}\n" for name in sorted(names)) + _TAIL


def main(arguments: list[str]) -> int:
    """Write the module, or compare it with `--check`."""
    text = module_text()
    if arguments == ["--check"]:
        is_current = TARGET.read_text(encoding="utf-8") == text
        print(f"{TARGET.name} is {'up to date' if is_current else 'out of date'}")
        return 0 if is_current else 1
    TARGET.write_text(text, encoding="utf-8")
    print(f"{TARGET}: {len(text.splitlines())} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
