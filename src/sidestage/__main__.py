"""`python -m sidestage`."""

from sidestage.cli.main import main

main()
