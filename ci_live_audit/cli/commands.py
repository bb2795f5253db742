"""What ``ci-live-audit`` can do."""

from __future__ import annotations

import asyncio
import logging
import sys

import click
from rich.console import Console

from ci_live_audit.cli.demo import Demo
from ci_live_audit.errors import ConfigurationError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ci-live-audit")
@click.option("-v", "--verbose", count=True, help="Log attempts to standard error; -vv: all.")
def cli(verbose: int) -> None:
    """Live stream moderation jobs of Tencent Cloud CI."""
    if verbose:
        logging.basicConfig(format="%(asctime)s %(name)s %(message)s")
        logging.getLogger("ci_live_audit" if verbose == 1 else None).setLevel(logging.DEBUG)


@cli.command()
def demo() -> None:
    """Moderate a dozen streams on an embedded emulator; no account needed.

    They are submitted, queried until they end, and cancelled as soon as something bad is found,
    by the real client over a real socket.
    """
    try:
        asyncio.run(Demo(Console()).run())
    except ConfigurationError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
