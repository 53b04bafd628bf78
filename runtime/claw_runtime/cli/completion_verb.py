"""`claw-runtime completion`."""

import click

from claw_runtime.cli import output

VARIABLE = "_CLAW_RUNTIME_COMPLETE"

ALIAS = {
    "bash": "complete -o nosort -F {function} claw\n",
    "zsh": "(( $+functions[compdef] )) && compdef {function} claw\n",
    "fish": 'complete --no-files --command claw --arguments "({function})";\n',
}
"""What makes a shell complete the short name as well."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that completes verbs, tenants and pools.

    Tenants and pools come from the running daemon; without a daemon they are not completed.

    \b
    Examples:
      source <(claw-runtime completion bash)                    # in ~/.bashrc
      source <(claw-runtime completion zsh)                     # in ~/.zshrc, after compinit
      claw-runtime completion fish > ~/.config/fish/completions/claw-runtime.fish
    """
    from click.shell_completion import ShellComplete, get_completion_class

    from claw_runtime.cli.main import command as everything

    cls = get_completion_class(shell)
    assert cls is not None  # noqa: S101 - click has all three
    script = cls(everything, {}, "claw-runtime", VARIABLE)
    # The base class's: bash's own starts a bash to look at its version, and the one who asked may have another.
    with output.writing():
        click.echo(ShellComplete.source(script) + ALIAS[shell].format(function=script.func_name), nl=False)
