"""Help, manual and completion say the same: all are made from one parser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cni.operate.commands import MODULES, build_parser, module_of

ROOT = Path(__file__).resolve().parents[2]


def test_manual_and_completion_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "conf/packaging/manual"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}run conf/packaging/manual"


@pytest.mark.parametrize("name", MODULES)
def test_every_command_has_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        build_parser(name).parse_args([name, "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and "examples:" in text and "Exit status" in text
    module = module_of(name)
    assert module.EXAMPLES and all(name in line for line in module.EXAMPLES)


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_understood(name: str) -> None:
    import shlex

    for line in module_of(name).EXAMPLES:
        words = shlex.split(line.partition(" >")[0].partition(" |")[0])
        if words[0] == "nftcni":
            assert build_parser().parse_args(words[1:]).command == name


def test_the_shell_takes_the_completion() -> None:
    script = f"""
    source {ROOT}/conf/completion/nftcni.bash
    COMP_WORDS=(nftcni do) COMP_CWORD=1; _nftcni; echo "${{COMPREPLY[@]}}"
    COMP_WORDS=(nftcni top --) COMP_CWORD=2; _nftcni; echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:2] == ["doctor", "--once --interval --json --help"], done.stderr
