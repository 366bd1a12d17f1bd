"""`steelyard envoy`: the shipped configuration of Envoy, with the values of one place in it."""

import click


@click.command
@click.option("--listen", metavar="HOST:PORT", help="Where callers come in.  [default: 127.0.0.1:8080]")
@click.option(
    "--admin", metavar="HOST:PORT", help="Envoy's own pages; keep them on loopback.  [default: 127.0.0.1:9901]"
)
@click.option("--dns", metavar="NAME:PORT", help="Gateways behind one DNS name, such as a headless service.")
@click.option(
    "--endpoints", multiple=True, metavar="IP:PORT", help="Print the file of these gateways instead; may be repeated."
)
def envoy(listen: str | None, admin: str | None, dns: str | None, endpoints: tuple[str, ...]) -> int:
    """Print a configuration of Envoy in front of several gateways; infra/envoy/README.md tells what it does.

    Without --dns Envoy follows the file endpoints.yaml in the folder it runs in, which --endpoints prints.
    """
    from gateway.cluster import envoyfile
    from gateway.errors import SettingsError

    if endpoints:
        if listen or admin or dns:
            raise SettingsError("--endpoints prints a file of its own; give the other options in another call")
        click.echo(envoyfile.endpoints([envoyfile.parsed(text) for text in endpoints]), nl=False)
        return 0
    text = envoyfile.configured(
        envoyfile.shipped(),
        listen=envoyfile.parsed(listen) if listen else None,
        admin=envoyfile.parsed(admin) if admin else None,
        dns=envoyfile.parsed(dns) if dns else None,
    )
    click.echo(text, nl=False)
    return 0
