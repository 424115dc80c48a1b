"""The command line."""

from __future__ import annotations

import sys
from collections.abc import Callable

from costmw.errors import CostmwError, MissingExtra


def main() -> None:
    """Run `costmw`; an error of ours is one line, not a traceback."""
    try:
        _app()()
    except CostmwError as error:
        print(f"costmw: {error}", file=sys.stderr)  # noqa: T201 - what a command says
        raise SystemExit(1) from error


def _app() -> Callable[[], object]:
    try:
        import typer
    except ImportError as error:
        raise MissingExtra(package="typer", extra="cli") from error

    app = typer.Typer(
        help="What every LLM call in a web app costs.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    # With one command alone, typer would leave its name out.
    app.callback()(lambda: None)

    @app.command()
    def demo(
        port: int = typer.Option(0, help="Port on 127.0.0.1; 0 takes a free one."),
        seconds: float = typer.Option(0, help="Stop by itself after so long; 0 runs until Ctrl-C."),
        store: str = typer.Option(
            "", help="Where to keep the demo's data; a temporary file when left out."
        ),
    ) -> None:
        """Show the page of an example app that serves traffic. Costs nothing."""
        from costmw.demo import run_demo

        run_demo(port=port, seconds=seconds or None, store=store or None)

    return app


if __name__ == "__main__":
    main()
