"""`pellucid completion SHELL`: the script that makes a shell complete commands, options and choices."""

from __future__ import annotations

import click


@click.command(
    epilog="""\b
To use it in every new shell:
  bash  pellucid completion bash >> ~/.bashrc
  zsh   pellucid completion zsh >> ~/.zshrc
  fish  pellucid completion fish > ~/.config/fish/completions/pellucid.fish
"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    from pellucid.cli.main import main

    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"click knows no completion for '{shell}'")
    complete = kind(main, {}, "pellucid", "_PELLUCID_COMPLETE")
    # `source()` would start bash only to check its version.
    click.echo(complete.source_template % complete.source_vars())
