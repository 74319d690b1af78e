"""``python -m server``: the command line."""

from server import standard

standard.secure()  # before anything else opens a file

from server.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
