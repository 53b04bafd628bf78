"""Commands of claw-runtime in shell text, and whether click would take them, without executing any."""

import re
import shlex

import click


def command_lines(text: str) -> list[list[str]]:
    """Arguments of every `claw-runtime …` in a shell text, without redirections and what a pipe leads to."""
    text = re.sub(r"(^|[ \t])#.*", r"\1", text.replace("\\\n", " "), flags=re.MULTILINE)
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    found: list[list[str]] = []
    words: list[str] = []
    for token in [*lexer, "\n"]:
        if token and set(token) <= set("();<>|&\n"):
            if token[0] in "<>" and words and words[-1].isdigit():
                words.pop()  # the descriptor of `2> file`
            found += [called] if (called := _called(words)) is not None else []
            words = []
        else:
            words.append(token)
    return found


def _called(words: list[str]) -> list[str] | None:
    """The arguments when these words call claw-runtime, by itself or behind another command; `claw` is a user too."""
    if words[:1] == ["claw"]:
        return words[1:]
    at = next((at for at, word in enumerate(words) if word.rpartition("/")[2] == "claw-runtime"), None)
    return None if at is None else words[at + 1 :]


def complaint(
    command: click.Command, arguments: list[str], *, complete: bool = True, parent: click.Context | None = None
) -> str:
    """Why click would refuse these arguments; empty when it would not. Nothing is executed or looked up on disk.

    With `complete` off, arguments may be missing: prose names a verb without its arguments.
    """
    # With the program's own settings: a command keeps the help option of the first context that asks for it.
    context = click.Context(command, parent, info_name=command.name, **command.context_settings)
    try:
        given, rest, _ = command.make_parser(context).parse_args(list(arguments))
    except click.UsageError as error:
        return error.format_message()
    if set(arguments) & set(context.help_option_names):
        return ""
    for parameter in command.get_params(context):
        value = given.get(parameter.name)
        absent = not isinstance(value, (str, tuple)) or value == ()  # click has a marker of its own for "not given"
        if isinstance(parameter, click.Argument) and parameter.required and absent and complete:
            return f"{command.name}: missing {parameter.name}"
    if isinstance(command, click.Group):
        if not rest:
            return ""
        below = command.get_command(context, rest[0])
        if below is None:
            return f"{command.name}: no such verb: {rest[0]}"
        return complaint(below, rest[1:], complete=complete, parent=context)
    if rest and not command.allow_extra_args:
        return f"{command.name}: too much: {shlex.join(rest)}"
    return ""
