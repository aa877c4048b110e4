"""`python -m homestretch` is the `homestretch` command."""

from homestretch.cli import main

if __name__ == "__main__":
    main()
