"""`python -m amphora` is the same as `amphora`."""

from amphora.cli import main

if __name__ == "__main__":
    main()
