"""Label names in a NIfTI header, as TotalSegmentator writes them beside its label map (``--ml``).

They stand as a table of Connectome Workbench's XML (``<Label Key="10"...><![CDATA[lung_upper_lobe_left]]></Label>``)
in a header extension (https://nifti.nimh.nih.gov/nifti-1/documentation/nifti1fields/nifti1fields_pages/extension.html).
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from pathlib import Path

from m2unet.cohort.mask_files.segments import Segment

_MOST_BYTES = 1 << 22
_LABEL = re.compile(rb'<Label\s[^>]*?Key="(\d+)"[^>]*>\s*(?:<!\[CDATA\[)?(.*?)(?:\]\]>)?\s*</Label>', re.DOTALL)


def read_label_names(path: Path) -> dict[int, Segment]:
    """The names of labels by value, without the background; empty where the header has none."""
    head = _head(path)
    if len(head) < 352:
        return {}
    order = "<" if struct.unpack("<i", head[:4])[0] in (348, 540) else ">"
    size = struct.unpack(order + "i", head[:4])[0]
    if size == 348:
        begin, end = 348, int(struct.unpack(order + "f", head[108:112])[0])
    elif size == 540 and len(head) >= 544:
        begin, end = 540, struct.unpack(order + "q", head[168:176])[0]
    else:
        return {}
    if head[begin] == 0:
        return {}
    found = {int(key): name.decode("utf-8", "replace").strip() for key, name in _LABEL.findall(head[begin:end])}
    return {key: Segment(name) for key, name in found.items() if key and name}


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            if stream.read(2) != b"\x1f\x8b":
                stream.seek(0)
                return stream.read(_MOST_BYTES)
        with gzip.open(path) as packed:
            return packed.read(_MOST_BYTES)
    except (OSError, EOFError, zlib.error):
        return b""  # reading the voxels will say what is wrong
