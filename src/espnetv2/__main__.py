"""`python -m espnetv2` is the command line."""

from espnetv2.cli.app import main

main()
