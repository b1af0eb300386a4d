"""Write src/espnetv2/models/counts.json: what `espnetv2 models` shows without building anything."""

import json
import pathlib
import sys

from espnetv2.models.catalog import CATALOG
from espnetv2.profiling.complexity import measure_by_name
from espnetv2.weights.published import PUBLISHED

TARGET = pathlib.Path(__file__).parents[1] / "src" / "espnetv2" / "models" / "counts.json"


def main():
    rows = {}
    for name in [*CATALOG, *PUBLISHED]:
        counted = measure_by_name(name)
        rows[name] = {
            "parameters": counted.parameters,
            "live_parameters": counted.live_parameters,
            "macs": counted.macs,
            "transposed_macs": counted.transposed_macs,
            "linear_macs": counted.linear_macs,
        }
        print(name, rows[name]["parameters"], rows[name]["macs"], file=sys.stderr)
    TARGET.write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
