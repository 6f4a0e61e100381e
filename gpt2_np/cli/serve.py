"""``gpt2-np serve``: a server of completions."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import click

from ..model.choices import BACKENDS, DTYPES
from ..server.limits import Limits
from .options import FC, GroupedCommand, backend_option, dtype_option, grouped, load, model_option

LIMITS = "Limits"
EXAMPLES = {
    "Options": "gpt2-np serve --model gpt2 --dtype int8 --port 8000",
    "Who may ask": "GPT2_NP_API_KEY=$(openssl rand -hex 16) gpt2-np serve --host 0.0.0.0",
    LIMITS: "gpt2-np serve --rows 8 --queue 32 --seconds 60",
}


def limit_options(function: FC) -> FC:
    """An option for each limit."""
    for one in reversed(fields(Limits)):
        flag, kind = f"--{one.name.replace('_', '-')}", float if one.type == "float" else int
        shown = {"default": one.default, "show_default": True, "help": one.metadata["help"]}
        function = grouped(LIMITS, flag, type=kind, **shown)(function)
    return function


@click.command(cls=GroupedCommand, examples=EXAMPLES, short_help="Serve completions over HTTP, in OpenAI's protocol.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address to listen on; 0.0.0.0 admits every machine."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="The port to listen on; 0 takes a free one.",
)
@click.option("--name", help="The model's name in requests.  [default: --model, or its folder's name]")
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="The seconds that requests in progress have to end after Ctrl-C.",
)
@grouped(
    "Who may ask",
    "--api-key",
    envvar="GPT2_NP_API_KEY",
    show_envvar=True,
    metavar="KEY",
    help="The key that requests must send.",
)
@grouped(
    "Who may ask",
    "--cors",
    multiple=True,
    metavar="ORIGIN",
    help="Web pages from this origin may send requests; repeatable.",
)
@grouped(
    "Who may ask",
    "--allowed-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A host name that requests may use for this server; repeatable.",
)
@limit_options
@model_option()
@dtype_option(DTYPES)
@backend_option("The implementation: compiled kernels, or readable NumPy.", BACKENDS)
def serve(
    host: str,
    port: int,
    name: str | None,
    grace: float,
    api_key: str | None,
    cors: tuple[str, ...],
    hosts: tuple[str, ...],
    model: str,
    dtype: str,
    backend: str | None,
    **limits: Any,
) -> None:
    """Serve a model at http://HOST:PORT/v1/completions, with a page for trying it at http://HOST:PORT/.

    The server is reachable from this machine only, unless --host says otherwise. After Ctrl-C it ends once the requests
    in progress are done.
    """
    checked = Limits(**limits)
    try:
        from ..server.run import serve as run
    except ModuleNotFoundError as error:
        raise ValueError(f"the server needs {error.name}: pip install 'gpt2-np[serve]'") from None
    run(
        load(model, dtype, backend, None),
        name=name,
        host=host,
        port=port,
        api_key=api_key,
        cors=cors,
        hosts=hosts,
        limits=checked,
        grace=grace,
    )
