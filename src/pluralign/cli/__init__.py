"""The command line. Importing it costs nothing but typer; every command imports what it needs when it runs."""

import sys


def main() -> None:
    """Run `pluralign`. Errors raised on purpose are printed without a traceback, exit code 2; Ctrl-C is 130."""
    from pluralign.cli import control_app
    from pluralign.errors import PluralignError

    try:
        control_app.app()
    except PluralignError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(2)
    except (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError) as error:  # a path that cannot be
        if error.filename is None:
            raise
        print(f"error: {error.filename2 or error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as stop:
        if stop.code == 130:  # what typer makes of Ctrl-C
            print("\ninterrupted; run the same command again to go on from what is cached", file=sys.stderr)
        raise
