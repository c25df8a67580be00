# SPDX-License-Identifier: Apache-2.0
"""Which files can execute code when somebody loads them: recognised by name and by content.

``refusal`` looks at a file's path and its first ``limits.HEAD_BYTES`` bytes, in this order:

1. Names that loaders hand to an interpreter or an unpickler are refused whatever the content: a pickle need not begin
   with anything in particular, so no look at ``pytorch_model.bin`` can clear it.
2. ``*.safetensors`` must begin as a safetensors file. Its magic is its header's length, any two bytes, so the tests of
   step 3 do not apply; the publisher and the service parse the whole header besides (``safetensors.parse_header``).
3. Content that begins as a pickle, an archive, a program, bytecode or a script is refused whatever the name.
4. What is left must be recognised: text (UTF-8 without NUL, and no ``!!python`` tag in YAML), or a
   binary format that holds data only, by its name and, where it has one, its magic number. The rest is refused.

Nothing is unpacked, unpickled or imported to find out. A reason is a sentence for the publisher; ``--allow-unsafe``
overrides every one of them except for ``*.safetensors``.
"""

from __future__ import annotations

import codecs
import re
from types import MappingProxyType
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format import pickle_opcodes, safetensors
from pq_registry.format.manifest import SAFETENSORS_SUFFIX
from pq_registry.format.path import ReleasePath

_PICKLED = "is loaded with pickle, which runs the code in it"
_PROGRAM = "is a program or a script"
_ARCHIVE = "is an archive, which hides what is in it"
_GRAPH = "is a model format that can carry code"


def _table(groups: dict[str, str]) -> MappingProxyType[str, str]:
    return MappingProxyType({suffix: reason for reason, suffixes in groups.items() for suffix in suffixes.split()})


_NAMES: Final = _table(
    {
        _PICKLED: ".bin .ckpt .dill .joblib .mar .nemo .npz .ot .pickle .pkl .pt .pt2 .pth",
        _GRAPH: ".engine .h5 .hdf5 .keras .pb .plan",
        _PROGRAM: (
            ".a .bash .bat .class .cmd .com .deb .desktop .dll .dylib .egg .exe .fish .ipynb .jar .js .lnk .lua .mjs "
            ".msi .o .php .pl .ps1 .py .pyc .pyd .pyo .pyw .pyz .rb .rpm .scr .sh .so .vbs .wasm .whl .zsh"
        ),
        _ARCHIVE: ".7z .br .bz2 .cab .gz .iso .lz4 .rar .tar .tgz .xz .zip .zst",
    }
)

_MAGIC: Final = (
    # PK is also what torch.save writes: a zip with a pickle inside.
    (re.compile(rb"PK\x03\x04|PK\x05\x06|PK\x07\x08"), _ARCHIVE),
    (re.compile(rb"\x1f\x8b|BZh[1-9]1AY|\xfd7zXZ\x00|\x28\xb5\x2f\xfd|\x04\x22\x4d\x18"), _ARCHIVE),
    (re.compile(rb"7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|[\x00-\xff]{257}ustar", re.DOTALL), _ARCHIVE),
    (re.compile(rb"\x89HDF\r\n\x1a\n"), _GRAPH),
    (re.compile(rb"\x7fELF|MZ[\x00-\xff]{0,62}\x00|\x00asm|!<arch>\n|#!"), _PROGRAM),
    # Mach-O of either width and byte order; \xca\xfe\xba\xbe is also a Java class.
    (re.compile(rb"\xfe\xed\xfa[\xce\xcf]|[\xce\xcf]\xfa\xed\xfe|\xca\xfe\xba[\xbe\xbf]"), _PROGRAM),
    # CPython 3 bytecode: a version number between 0x0b00 and 0x0eff, little endian, then CR LF.
    (re.compile(rb"[\x00-\xff][\x0b-\x0e]\r\n"), _PROGRAM),
)

_DATA: Final = MappingProxyType(
    {
        ".arrow": b"ARROW1",
        ".bmp": b"BM",
        ".flac": b"fLaC",
        ".gguf": b"GGUF",
        ".gif": b"GIF8",
        ".ico": b"\x00\x00\x01\x00",
        ".jpeg": b"\xff\xd8\xff",
        ".jpg": b"\xff\xd8\xff",
        ".npy": b"\x93NUMPY",
        ".ogg": b"OggS",
        ".parquet": b"PAR1",
        ".pdf": b"%PDF-",
        ".png": b"\x89PNG\r\n\x1a\n",
        ".wav": b"RIFF",
        ".webp": b"RIFF",
        # Flat structures without a magic number at their start: tensors, vocabularies, and graphs over a fixed set
        # of operators. Nothing in them is handed to an interpreter.
        ".model": b"",
        ".mp3": b"",
        ".mp4": b"",
        ".msgpack": b"",
        ".onnx": b"",
        ".onnx_data": b"",
        ".spm": b"",
        ".tflite": b"",
    }
)
# dtypes of plain numbers and text; an object array ('|O') is a pickle, and a structured one may hold such a field.
_NPY_PLAIN = re.compile(rb"\x93NUMPY[\x00-\xff]{4,6}\{'descr': '[<>|=][biufcSU][0-9]*', ")
_YAML_CODE = re.compile(rb"!!python/|tag:yaml\.org,2002:python/")


def refusal(path: ReleasePath, head: bytes) -> str | None:
    """Why a file may not be published, or None if it may.

    Args:
        path: where it stands in the release.
        head: its first ``limits.HEAD_BYTES`` bytes, or all of it if it is shorter.

    Returns:
        A clause that completes "PATH ...", for instance "is a program or a script".
    """
    suffix = path.suffix
    # 1. The name. ".safetensors" alone is no suffix but a hidden file, and falls through to step 4.
    if (reason := refusal_by_name(path)) is not None:
        return reason
    # 2. safetensors
    if suffix == SAFETENSORS_SUFFIX:
        return None if _begins_as_safetensors(head) else "is not a safetensors file, whatever its name says"
    # 3. The content.
    if pickle_opcodes.is_pickle(head):
        return _PICKLED
    for magic, reason in _MAGIC:
        if magic.match(head):
            return reason
    # 4. What is left must be recognised.
    if suffix in _DATA and (_DATA[suffix] or not _is_text(head)):
        return _data_refusal(suffix, head)
    if not _is_text(head):
        return "is in no format that is known to hold only data"
    if suffix in (".yaml", ".yml") and _YAML_CODE.search(head):
        return "is YAML with a !!python tag, which names code to run"
    return None


def refusal_by_name(path: ReleasePath) -> str | None:
    """Step 1 alone: why a file may not be published whatever it holds, for those who have not got it yet."""
    return _NAMES.get(path.suffix)


def _begins_as_safetensors(head: bytes) -> bool:
    try:
        # The size of the file is not known here; a length past its end is found when the header is parsed.
        size = safetensors.header_size(head[: safetensors.LENGTH_BYTES], limits.FILE_BYTES)
    except FormatError:
        return False
    return size > safetensors.LENGTH_BYTES and head[safetensors.LENGTH_BYTES :][:1] == b"{"


def _data_refusal(suffix: str, head: bytes) -> str | None:
    if not head.startswith(_DATA[suffix]):
        return f"is not a {suffix} file, whatever its name says"
    if suffix == ".npy" and not _NPY_PLAIN.match(head):
        return _PICKLED
    return None


def _is_text(head: bytes) -> bool:
    try:
        # Not final: the head may end in the middle of a character.
        codecs.getincrementaldecoder("utf-8")().decode(head, final=False)
    except UnicodeDecodeError:
        return False
    return b"\x00" not in head
