"""A profiler `ncu` that prints what it is told, in the form of the real one."""

import json
import stat
import sys

from espnetv2.profiling.kernel_counters import METRICS

HEAD = (
    *("ID", "Process ID", "Process Name", "Host Name", "Kernel Name"),
    *("Context", "Stream", "Block Size", "Grid Size", "Device", "CC"),
)
UNITS = ("ns", "%", "inst", "inst", "sector", "sector", "%", "%")


def table(*kernels):
    """As `ncu --csv --page raw --print-units base`: head, units, a line for each kernel.

    Each kernel is a list of values in the order of `METRICS`, as texts.
    """
    lines = [(*HEAD, *METRICS), (*[""] * len(HEAD), *UNITS)]
    for number, values in enumerate(kernels):
        start = (str(number), "4711", "python3.12", "127.0.0.1", "void k<float, 4>(T1, T2)")
        lines.append((*start, "1", "7", "(128, 1, 1)", "(1, 1, 1)", "0", "9.0", *values))
    body = [",".join(f'"{value}"' for value in line) for line in lines]
    progress = ["==PROF== Connected to process 4711 (python3.12)"]
    progress += [
        f'==PROF== Profiling "k" - {number}: 0%....50%....100% - 5 passes'
        for number in range(len(kernels))
    ]
    return "\n".join([*progress, *body, "==PROF== Disconnected from process 4711"]) + "\n"


def install(folder, output, *, code=0, complaint="", seconds=0.0):
    """Write the executable; the arguments that it is given are in `arguments(folder)`."""
    place = folder / "ncu"
    place.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib, sys, time\n"
        f"pathlib.Path({str(folder / 'arguments.json')!r}).write_text(json.dumps(sys.argv[1:]))\n"
        f"time.sleep({seconds})\n"
        f"sys.stdout.write({output!r})\n"
        f"sys.stderr.write({complaint!r})\n"
        f"sys.exit({code})\n"
    )
    place.chmod(place.stat().st_mode | stat.S_IXUSR)
    return str(place)


def arguments(folder):
    return json.loads((folder / "arguments.json").read_text())
