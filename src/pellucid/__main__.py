"""`python -m pellucid`: the command line."""

from pellucid.cli._start import main

if __name__ == "__main__":
    main()
