"""The manual pages and completions that a package installs: complete, the same as the help, and in good order."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pvc.cli import manual, roff
from pvc.cli.manual import all_files, contexts, main


@pytest.fixture(scope="module")
def usr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("usr")
    assert main([str(directory)]) == 0
    return directory


def pages(usr: Path) -> list[Path]:
    return sorted((usr / "share/man").rglob("*.[18]"))


def test_every_command_has_a_page_and_nothing_else_has(usr: Path) -> None:
    wanted = {f"{context.command_path.replace(' ', '-')}.1" for context in contexts()} | {"pvcd.8"}
    assert {page.name for page in pages(usr)} == wanted
    assert {"pvc.1", "pvc-vm-start.1", "pvc-connection-info.1", "pvc-doctor.1"} <= wanted


def test_the_pages_are_in_good_order(usr: Path) -> None:
    done = subprocess.run(["mandoc", "-Tlint", *map(str, pages(usr))], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    for page in pages(usr):
        rendered = subprocess.run(["groff", "-man", "-ww", "-Tutf8", "-z", str(page)], capture_output=True, check=True)
        assert rendered.stderr == b"", page.name


def test_a_page_says_what_the_help_says(usr: Path) -> None:
    for context in contexts():
        page = usr / f"share/man/man1/{context.command_path.replace(' ', '-')}.1"
        done = subprocess.run(
            ["mandoc", "-Tascii", "-Owidth=300", str(page)], capture_output=True, text=True, check=True
        )
        shown = " ".join(_without_overstrikes(done.stdout).split())
        for param in context.command.params:
            record = param.get_help_record(context)
            for word in (record[0] if record and param.param_type_name == "option" else "").split(", "):
                assert " ".join(word.split()).replace("…", "...") in shown.replace("<?>", "..."), (page.name, word)
        epilog = (context.command.epilog or "").partition("Example:\n")[2]
        for line in epilog.splitlines():
            assert " ".join(line.split()).replace("…", "...") in shown.replace("<?>", "..."), (page.name, line)


def test_the_shells_take_their_completions_as_they_are(usr: Path) -> None:
    for command in (
        ["bash", "-n", str(usr / "share/bash-completion/completions/pvc")],
        ["zsh", "-n", str(usr / "share/zsh/vendor-completions/_pvc")],
        ["fish", "--no-execute", str(usr / "share/fish/vendor_completions.d/pvc.fish")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), command
    assert (usr / "share/zsh/vendor-completions/_pvc").read_text().startswith("#compdef pvc\n")


def test_a_build_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first = all_files()
    assert "2023-11-14" in first["share/man/man1/pvc.1"]
    assert first == all_files()


def test_it_is_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["-h"])
    assert "DIR" in capsys.readouterr().out
    main([str(tmp_path / "debian/tmp/usr")])
    assert (tmp_path / "debian/tmp/usr/share/man/man1/pvc.1").stat().st_mode & 0o777 == 0o644
    assert manual.__doc__ is not None and "python -m pvc.cli.manual DIR" in manual.__doc__


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (".hidden", "\\&.hidden"),
        ("'quoted'", "\\&\\(aqquoted\\(aq"),
        ("--wait", "\\-\\-wait"),
        ("a\\b", "a\\eb"),
        ("…", "\\[u2026]"),
    ],
)
def test_no_text_is_taken_for_a_command_of_the_page(text: str, written: str) -> None:
    assert roff.line(text) == written


def _without_overstrikes(text: str) -> str:
    """A terminal's bold is a letter over itself."""
    while "\b" in text:
        at = text.index("\b")
        text = text[: at - 1] + text[at + 1 :]
    return text
