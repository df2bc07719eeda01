"""`python -m pluralign`."""

from pluralign.cli import main

main()
