"""Help, manual and completion say the same: all are made from one parser."""

from __future__ import annotations

import os
import shutil
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


def run(script: str, *words: str, **env: str) -> str:
    """What a shell says to a script, with a program named nftcni that lists one container."""
    if not shutil.which(words[0]):
        pytest.skip(f"NOT RUN: its completion needs {words[0]}")
    done = subprocess.run(
        [*words, script], capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **env}
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def listing(tmp_path: Path) -> dict[str, str]:
    program = tmp_path / "nftcni"
    program.write_text("#!/bin/sh\necho 'net0/c1/eth0  veth1@br  10.4.0.2/24'\n")
    program.chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}


def test_bash_takes_the_completion(listing: dict[str, str]) -> None:
    script = f"""
    source {ROOT}/conf/completion/nftcni.bash
    COMP_WORDS=(nftcni do) COMP_CWORD=1; _nftcni; echo "${{COMPREPLY[@]}}"
    COMP_WORDS=(nftcni top --) COMP_CWORD=2; _nftcni; echo "${{COMPREPLY[@]}}"
    COMP_WORDS=(nftcni repair ne) COMP_CWORD=2; _nftcni; echo "${{COMPREPLY[@]}}"
    """
    said = run(script, "bash", "-c", **listing)
    assert said.splitlines() == ["doctor", "--once --interval --json --help", "net0/c1"]


def test_fish_takes_the_completion(listing: dict[str, str]) -> None:
    """A dollar in double quotes made fish refuse the whole file."""
    script = f"""
    source {ROOT}/conf/completion/nftcni.fish
    for line in 'nftcni do' 'nftcni top --' 'nftcni repair ne' 'nftcni check {ROOT}/conf/nftc'
        complete -C $line | string replace -r '\\t.*' ''
    end
    true  # no description is no failure
    """
    said = run(script, "fish", "-c", **listing)
    assert said.split() == ["doctor", "--interval", "--json", "--once", "net0/c1", f"{ROOT}/conf/nftcni"]


def test_zsh_takes_the_completion(listing: dict[str, str]) -> None:
    """Typed at a terminal: outside of one its functions refuse to run. Each read waits for what it must see."""
    script = f"""
    zmodload zsh/zpty && zpty shell zsh -f -i
    zpty -w shell 'PROMPT=; fpath=({ROOT}/conf/completion $fpath); autoload -Uz compinit; compinit -D -u'
    zpty -w shell 'echo is-$((1))'
    zpty -r shell seen '*is-1*'
    for typed seen in doc doctor 'top --int' 'top --interval' 'repair ' 'repair net0/c1'; do
        zpty -w -n shell $'\\C-u'"nftcni $typed"$'\\t'
        zpty -r shell read "*nftcni $seen*" && echo $seen
    done
    zpty -d shell
    """
    said = run(script, "zsh", "-f", "-c", TERM="dumb", **listing)
    assert said.splitlines() == ["doctor", "top --interval", "repair net0/c1"]


@pytest.mark.parametrize("reader", ["man --warnings -Tutf8 -Z -l", "mandoc -T lint -W warning"])
def test_the_manual_is_read_without_a_warning(reader: str) -> None:
    words = reader.split()
    if not shutil.which(words[0]):
        pytest.skip(f"NOT RUN: a second look at the manual page needs {words[0]}")
    page = str(ROOT / "conf/man/nftcni.8")
    done = subprocess.run([*words, page], capture_output=True, text=True, check=False)
    said = done.stdout if words[0] == "mandoc" else ""
    assert (done.returncode, said, done.stderr) == (0, "", "")
