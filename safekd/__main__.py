"""``python -m safekd`` is the command line, as ``safekd`` is."""

from .cli import main

if __name__ == "__main__":
    main()
