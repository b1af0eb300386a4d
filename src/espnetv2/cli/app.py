"""The command line: `espnetv2 COMMAND`."""

from __future__ import annotations

import sys
import warnings

import typer

from espnetv2.cli.benchmark import benchmark
from espnetv2.cli.convert import convert
from espnetv2.cli.data import data_app
from espnetv2.cli.demo import demo
from espnetv2.cli.eval import eval_
from espnetv2.cli.export import export
from espnetv2.cli.info import info
from espnetv2.cli.models import models
from espnetv2.cli.predict import predict
from espnetv2.cli.reproduce import reproduce
from espnetv2.cli.train import train
from espnetv2.errors import UserError

app = typer.Typer(
    name="espnetv2",
    help="Light-weight networks built from the EESP unit. Not the speech toolkit ESPnet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich for --help costs more than everything else
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(models)
app.command()(info)
app.command()(predict)
app.command("eval")(eval_)
app.command()(convert)
app.command()(export)
app.command()(benchmark)
app.command()(train)
app.command()(reproduce)
app.command()(demo)
app.add_typer(data_app)


def main() -> None:
    """Run a command; a user's mistake is one line and exit code 2."""
    warnings.filterwarnings("ignore", module="PIL")  # sound pictures with odd EXIF data
    try:
        app()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
