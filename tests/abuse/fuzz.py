"""Damage good files at random and read them: ``python -m tests.abuse.fuzz KIND FOLDER COUNT SEED``.

A process of its own, because a crash inside a library must not take the tests down and because memory is limited for
the process as a whole. Prints one JSON line: how many inputs were accepted and refused, the slowest, the peak memory.
Anything but an answer or a :class:`m2unet.errors.M2UNetError` ends it with a traceback.
"""

from __future__ import annotations

import json
import logging
import random
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from m2unet.errors import M2UNetError

SPACE = 6 << 30
"""Address space the process may take: libraries and threads alone reserve about 3 GiB."""

Reader = Callable[[Path], object]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Truncated, bits flipped, a run overwritten, a piece doubled or taken out, numbers made extreme."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(min(len(content), rng.choice((64, 600, len(content)))) or 1)
        how = rng.randrange(6)
        if how == 0:
            content = content[:at]
        elif how == 1 and content:
            content[at % len(content)] ^= 1 << rng.randrange(8)
        elif how == 2:
            content[at : at + rng.choice((2, 4, 8))] = rng.randbytes(rng.choice((2, 4, 8)))
        elif how == 3:
            content[at : at + 4] = rng.choice((b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x80", b"\xff\xff\xff\xff"))
        elif how == 4:
            content[at:at] = content[at : at + rng.randrange(1, 200)]
        else:
            del content[at : at + rng.randrange(1, 200)]
        if not content:
            break
    return bytes(content)


def readers() -> dict[str, Reader]:
    """What each kind of input is read with."""
    from m2unet.cohort.manifest import read_manifest
    from m2unet.config import load_config
    from m2unet.ct.checks import check_scan
    from m2unet.models.weights import load_model
    from m2unet.training.state import load_state

    def scan(path: Path) -> object:
        found = check_scan(path)
        if not found.ok:
            raise M2UNetError(found.findings[0].code)
        return found

    return {
        "scan": scan,
        "manifest": read_manifest,
        "config": load_config,
        "model": load_model,
        "state": load_state,
    }


def peak_mib() -> float:
    """Peak memory of this process, without what the process that started it had before the program was loaded."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) // 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20


def main() -> None:
    """Read COUNT damaged copies of what FOLDER holds: one file of it is damaged each time."""
    kind, folder, count, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    read = readers()[kind]
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    work = folder.with_name(folder.name + "-damaged")
    found = {"accepted": 0, "refused": 0, "slowest_s": 0.0}
    for number in range(count):
        rng = random.Random(f"{seed}-{number}")
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(folder, work)
        victim = rng.choice(files)
        copy = work / victim.relative_to(folder)
        copy.write_bytes(damaged(victim.read_bytes(), rng))
        target = work if kind in ("model", "state") or len(files) > 2 else copy
        started = time.process_time()
        try:
            read(target)
            found["accepted"] += 1
        except M2UNetError:
            found["refused"] += 1
        except BaseException:
            print(f"seed {seed}, input {number}, file {victim.name}", file=sys.stderr)
            raise
        found["slowest_s"] = max(found["slowest_s"], round(time.process_time() - started, 2))
    found["peak_mib"] = peak_mib()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
