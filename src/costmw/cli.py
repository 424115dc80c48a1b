"""The command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from costmw.errors import CostmwError, MissingExtra
from costmw.money import format_usd


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

    @app.command()
    def proxy(
        store: str = typer.Option("", help="The store's URL; COSTMW_STORE when left out."),
        host: str = typer.Option("127.0.0.1", help="Address to listen on."),
        port: int = typer.Option(4000, help="Port to listen on; 0 takes a free one."),
        config: str = typer.Option("", help="A TOML file: upstreams, keys, tokens, limits."),
        tags_header: bool = typer.Option(
            False, "--tags-header", help="Take tags from the header X-LLM-Tags, a JSON object."
        ),
        token_env: list[str] = typer.Option(  # noqa: B008
            [], help="An environment variable with a token that clients must show. Repeatable."
        ),
    ) -> None:
        """Meter the calls of what is not Python, on their way to the provider."""
        from costmw.meter import Meter
        from costmw.proxy.server import run_proxy
        from costmw.proxy.settings import settings_of_command

        settings = settings_of_command(config, tags_header=tags_header, token_env=token_env)
        run_proxy(Meter(store or None), settings, host=host, port=port)

    @app.command()
    def serve(
        store: str = typer.Option("", help="The store's URL; COSTMW_STORE when left out."),
        host: str = typer.Option("127.0.0.1", help="Address to listen on."),
        port: int = typer.Option(4001, help="Port to listen on; 0 takes a free one."),
        auth_token_env: str = typer.Option(
            "LLMCOST_TOKEN", help="The environment variable with the secret that opens the page."
        ),
        root_path: str = typer.Option("", help="The path that a proxy shows the page at."),
    ) -> None:
        """Show the page of a store on a server of its own. Records and changes nothing."""
        from costmw.serve import serve_page

        serve_page(
            store or None, token_env=auth_token_env, host=host, port=port, root_path=root_path
        )

    @app.command()
    def doctor(
        target: str = typer.Argument(
            "", metavar="[APP]", help="The app, as its server takes it: main:app."
        ),
        store: str = typer.Option("", help="The store's URL; the app's own when left out."),
        days: int = typer.Option(7, min=1, max=3650, help="How many days of calls to look at."),
        as_json: bool = typer.Option(False, "--json", help="Print the findings as JSON."),
    ) -> None:
        """Say what is wrong in a set-up, and how to mend it. Changes nothing."""
        from costmw import doctor as examination

        findings = (
            examination.examine_target(target, store=store or None, days=days)
            if target
            else examination.examine(store=store or None, days=days)
        )
        as_told = examination.as_json if as_json else examination.as_text
        typer.echo(as_told(findings))
        raise typer.Exit(any(finding.level == "error" for finding in findings))

    @app.command()
    def reprice(
        since: datetime = typer.Option(..., help="Calls from this day on (UTC)."),  # noqa: B008
        store: str = typer.Option("", help="The store's URL; COSTMW_STORE when left out."),
        everything: bool = typer.Option(
            False, "--all", help="Also calls that have a price, not only those without."
        ),
        dry_run: bool = typer.Option(False, help="Change nothing, only say what would."),
    ) -> None:
        """Price recorded calls again by today's prices; each change leaves a trail."""
        from costmw.meter import Meter

        meter = Meter(store or None)
        done = meter.reprice(
            since=since.replace(tzinfo=UTC), everything=everything, dry_run=dry_run
        )
        typer.echo(
            f"{done.looked_at} calls looked at, {done.changed} "
            f"{'would be' if dry_run else 'are'} repriced, "
            f"{format_usd(done.difference_pico_usd)} USD in all"
        )

    @app.command()
    def export(
        file_format: str = typer.Option(
            "",
            "--format",
            help="csv, jsonl, parquet or focus; what the file's name ends in, or csv.",
        ),
        start: str = typer.Option("", "--from", help="Calls from this day or moment on."),
        stop: str = typer.Option("", "--to", help="Calls before this day or moment."),
        where: list[str] = typer.Option(  # noqa: B008
            [], help="Calls that have this tag, as tenant=acme. Repeatable."
        ),
        output: str = typer.Option("-", help="The file to write; - is the standard output."),
        store: str = typer.Option("", help="The store's URL; COSTMW_STORE when left out."),
    ) -> None:
        """Write recorded calls to a file, oldest first."""
        from costmw.transfer.commands import export_calls

        done = export_calls(
            store, output, file_format=file_format, start=start, stop=stop, where=where
        )
        if done:
            typer.echo(done)

    @app.command("import")
    def import_(
        file: Path = typer.Argument(..., help="A CSV file, as of a table llm_usage_events."),  # noqa: B008
        store: str = typer.Option("", help="The store's URL; COSTMW_STORE when left out."),
        provider: str = typer.Option("", help="Who billed the rows that do not say."),
        dry_run: bool = typer.Option(False, help="Change nothing, only say what would."),
        skip_bad: bool = typer.Option(
            False, "--skip-bad", help="Leave out rows that are wrong; else one stops it all."
        ),
    ) -> None:
        """Add calls that were recorded elsewhere. Importing a file again adds nothing."""
        from costmw.transfer.commands import import_calls

        typer.echo(import_calls(store, file, provider=provider, dry_run=dry_run, skip_bad=skip_bad))

    @app.command()
    def report(
        month: str = typer.Option("", help="The month, as 2026-10; the last one when left out."),
        file_format: str = typer.Option(
            "", "--format", help="html or md; what the file's name ends in."
        ),
        output: str = typer.Option("-", help="The file to write; - is the standard output."),
        scope: list[str] = typer.Option(  # noqa: B008
            [], help="Only calls that have this tag, as tenant=acme. Repeatable."
        ),
        tz: str = typer.Option("", help="Days of this time zone; the ledger's when left out."),
        store: str = typer.Option("", help="The store's URL; COSTMW_STORE when left out."),
    ) -> None:
        """Write what a month cost, and why, as one page to print or send."""
        from costmw.monthly.command import write_report

        text, said = write_report(
            store, month, file_format=file_format, output=output, scope=scope, tz=tz
        )
        typer.echo(text or said, nl=not text)

    @app.command()
    def prune(
        days: int | None = typer.Option(None, min=1, help="Keep the rows of so many days."),
        before: str = typer.Option("", help="Drop the rows from before this day."),
        dry_run: bool = typer.Option(False, help="Change nothing, only say what would."),
        store: str = typer.Option("", help="The store's URL; COSTMW_STORE when left out."),
    ) -> None:
        """Drop the rows of old calls; their sums are kept for ever."""
        from costmw.care import commands

        typer.echo(commands.prune(store, days=days, before=before, dry_run=dry_run))

    @app.command()
    def verify(
        as_json: bool = typer.Option(False, "--json", help="Print what differs as JSON."),
        store: str = typer.Option("", help="The store's URL; COSTMW_STORE when left out."),
    ) -> None:
        """Prove that the sums which reports read are those of the rows. Changes nothing."""
        from costmw.care import commands

        told, agree = commands.verify(store, as_json=as_json)
        typer.echo(told)
        raise typer.Exit(not agree)

    @app.command()
    def rebuild(
        store: str = typer.Option("", help="The store's URL; COSTMW_STORE when left out."),
    ) -> None:
        """Make the sums that reports read anew, from the rows."""
        from costmw.care import commands

        typer.echo(commands.rebuild(store))

    @app.command()
    def backup(
        target: Path = typer.Argument(..., help="The file to make."),  # noqa: B008
        store: str = typer.Option("", help="The store's URL; COSTMW_STORE when left out."),
    ) -> None:
        """Copy the ledger, as it is at one moment, while it is in use."""
        from costmw.care import commands

        typer.echo(commands.backup(store, target))

    @app.command()
    def forget(
        tags: list[str] = typer.Argument(..., help="Whom to forget, as user=alice. Repeatable."),  # noqa: B008
        as_hash: bool = typer.Option(False, "--hash", help="Leave a keyed hash in its place."),
        as_nobody: bool = typer.Option(False, "--erase", help="Leave a random name in its place."),
        yes: bool = typer.Option(False, "--yes", help="Do not ask."),
        store: str = typer.Option("", help="The store's URL; COSTMW_STORE when left out."),
    ) -> None:
        """Take a user, or any tag's value, out of all rows and sums."""
        from costmw.care import commands

        sure = commands.sure_by_asking(yes=yes, confirm=typer.confirm)
        typer.echo(commands.forget(store, tags, as_hash=as_hash, as_nobody=as_nobody, sure=sure))

    @app.command()
    def migrate(
        check: bool = typer.Option(False, "--check", help="Change nothing, only say."),
        store: str = typer.Option("", help="The store's URL; COSTMW_STORE when left out."),
    ) -> None:
        """Bring a ledger of an older version up to date; an app does so when it starts."""
        from costmw.care import commands

        told, is_current = commands.migrate(store, check=check)
        typer.echo(told)
        raise typer.Exit(not is_current)

    alert = typer.Typer(help="Alerts of budgets, sudden spend and models.", no_args_is_help=True)
    alert.callback()(lambda: None)
    app.add_typer(alert, name="alert")

    @alert.command("test")
    def alert_test(
        target: str = typer.Argument(
            "", metavar="[APP]", help="The app, as its server takes it; or COSTMW_BUDGETS's file."
        ),
        store: str = typer.Option("", help="The store's URL; COSTMW_STORE when left out."),
    ) -> None:
        """Send a test alert through each channel, and say what happened."""
        from costmw.alerts import commands
        from costmw.doctor.loading import load_app
        from costmw.meters import all_meters

        app = load_app(target) if target else None
        told, arrived = commands.try_channels(store, None if app is None else all_meters())
        typer.echo(told)
        raise typer.Exit(not arrived)

    return app


if __name__ == "__main__":
    main()
