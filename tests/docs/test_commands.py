"""What the documentation shows is what happens."""

import shlex
from pathlib import Path

import pytest

from tests.docs import blocks
from tests.docs.blocks import Block, BlockFailed, Shell


@pytest.mark.parametrize("block", blocks.all_blocks("run"), ids=str)
def test_a_command_that_is_shown_prints_what_is_shown(block: Block, shell: Shell) -> None:
    shell.run(block)


@pytest.mark.xdist_group("docs-region")
@pytest.mark.parametrize(
    "file",
    sorted({block.file for block in blocks.all_blocks("served")}),
    ids=lambda file: str(file.relative_to(blocks.ROOT)),
)
def test_what_is_shown_of_an_empty_region_works(file: Path, region_shell: Shell) -> None:
    for block in blocks.blocks_of(file):
        if block.mark == "served":
            region_shell.run(block)


def test_every_command_that_is_shown_says_who_runs_it() -> None:
    unmarked = [
        str(block)
        for block in blocks.all_blocks()
        if (block.language in blocks.RUNNABLE) != (block.mark in blocks.MARKS)
    ]

    assert unmarked == []
    assert {block.language for block in blocks.all_blocks()} <= {
        *blocks.RUNNABLE,
        "",
        "json",
        "mermaid",
        "text",
        "yaml",
    }


def test_shells_and_programs_are_written_without_mistakes() -> None:
    """Also those that nothing here runs: what they do is not proven, that they can be read is."""
    shown = [block for block in blocks.all_blocks() if block.language in blocks.RUNNABLE]
    for block in shown:
        if block.language == "python":
            compile(block.text, str(block), "exec")
            continue
        for command in blocks.commands_of(block.text):
            assert shlex.split(command.text, comments=True), block

    assert {block.mark for block in shown} == set(blocks.MARKS)


# The runner itself: a block that is wrong must not pass.


def block(text: str, language: str = "console") -> Block:
    return Block(file=blocks.ROOT / "README.md", line=1, language=language, mark="run", text=text)


@pytest.mark.parametrize(
    "text",
    [
        "$ echo one\ntwo\n",
        "$ echo one; echo two\none\n",
        "$ true\nsomething\n",
        "$ false\n",
        "$ true # fails\n",
        "$ printf 'a\\nb\\n'\na\n…c\n",
    ],
)
def test_a_block_that_does_something_else_fails(text: str, shell: Shell) -> None:
    with pytest.raises(BlockFailed):
        shell.run(block(text))


def test_a_program_that_raises_fails(shell: Shell) -> None:
    with pytest.raises(BlockFailed, match="it's wrong"):
        shell.run(block('raise SystemExit("it\'s wrong")\n', language="python"))


def test_commands_share_a_shell_and_some_output_may_be_left_open(shell: Shell) -> None:
    shell.run(block("$ NAME=region\n$ echo one $NAME\n> echo two\none …\ntwo\n$ false # fails\n"))
