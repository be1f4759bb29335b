"""``python -m counterscan``."""

from counterscan.cli import main

main()
