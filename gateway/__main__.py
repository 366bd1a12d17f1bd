"""`python -m gateway serve ...`: the same command line as `steelyard`."""

from gateway.cli.main import main

if __name__ == "__main__":
    main()
