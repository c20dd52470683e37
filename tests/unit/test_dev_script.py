"""./dev as a person meets it: help, wrong words, and a machine that lacks something."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = ["demo", "test", "lint", "lab", "chaos", "sim", "fuzz", "bench", "schemas", "shell"]


def dev(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "dev", *arguments], capture_output=True, text=True, timeout=30)


def bash(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script with the functions of ./dev at hand."""
    prelude = f"set -euo pipefail; cd {ROOT}; ROOT=$PWD; source deploy/dev/common.sh; source deploy/dev/install.sh\n"
    return subprocess.run(
        ["bash", "-c", prelude + script], capture_output=True, text=True, timeout=30, env={**os.environ, **environment}
    )


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    """A directory of stand-ins, to be put first on PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    return directory


def put(directory: Path, name: str, body: str) -> None:
    (directory / name).write_text(f"#!/bin/bash\n{body}\n")
    (directory / name).chmod(0o755)


def test_help_names_every_command() -> None:
    result = dev("--help")
    assert result.returncode == 0
    assert [c for c in COMMANDS if not re.search(rf"^  {c} ", result.stdout, re.M)] == []


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_each_command_explains_itself_with_an_example_and_installs_nothing(command: str, flag: str) -> None:
    result = dev(command, flag)
    assert result.returncode == 0
    assert result.stdout.startswith(f"Usage: ./dev {command}")
    assert f"Example: ./dev {command}" in result.stdout


def test_an_unknown_command_is_named_with_a_remedy() -> None:
    result = dev("tset")
    assert result.returncode == 2
    assert "no such command: tset" in result.stderr
    assert "./dev -h" in result.stderr


def test_no_command_at_all_shows_the_help_and_fails() -> None:
    result = dev()
    assert result.returncode == 2
    assert "Usage: ./dev" in result.stderr


@pytest.mark.parametrize("command", ["lint", "demo"])
def test_a_word_a_command_does_not_know_is_refused_before_anything_is_installed(command: str) -> None:
    result = dev(command, "--nonsense")
    assert result.returncode == 2
    assert "--nonsense" in result.stderr


def test_only_missing_packages_are_asked_for(bin_dir: Path) -> None:
    put(bin_dir, "dpkg-query", "echo 'installed gcc'; echo 'config-files kmod'; exit 1")
    result = bash("missing_of gcc kmod shellcheck", PATH=f"{bin_dir}:{os.environ['PATH']}")
    assert result.stdout.split() == ["kmod", "shellcheck"]


def test_without_root_or_sudo_the_missing_packages_are_named_and_it_goes_on(bin_dir: Path) -> None:
    put(bin_dir, "dpkg-query", "exit 1")
    result = bash("can_be_root() { false; }; install_packages lint; echo after", PATH=f"{bin_dir}:{os.environ['PATH']}")
    assert "Not root and no sudo: going on without these Debian packages: shellcheck" in result.stdout
    assert result.stdout.endswith("after\n")


@pytest.mark.parametrize(
    ("lists", "message"),
    [("exit 100", "could not fetch the package lists"), ("exit 0", "could not install: shellcheck")],
)
def test_an_unreachable_mirror_ends_in_a_clear_error(bin_dir: Path, lists: str, message: str) -> None:
    put(bin_dir, "dpkg-query", "exit 1")
    put(bin_dir, "apt-cache", lists)
    put(bin_dir, "apt-get", "echo 'E: Temporary failure resolving'; exit 100")
    result = bash(
        'as_root() { "$@"; }; can_be_root() { true; }; install_packages lint', PATH=f"{bin_dir}:{os.environ['PATH']}"
    )
    assert result.returncode == 1
    assert "Temporary failure resolving" in result.stdout
    assert message in result.stderr
    assert "mirror" in result.stderr


def test_a_step_is_quiet_when_it_succeeds_and_shows_its_end_when_it_fails() -> None:
    good = bash("step 'test quiet' bash -c 'echo secret-noise'")
    assert good.returncode == 0
    assert "secret-noise" not in good.stdout
    bad = bash("step 'test loud' bash -c 'seq 1 100; exit 7'")
    assert bad.returncode == 7
    assert bad.stdout.splitlines()[0].startswith("test loud ... failed")
    assert "    100" in bad.stdout
    assert "    1\n" not in bad.stdout
    assert ".cache/dev/test-loud.log" in bad.stdout


def test_colour_is_for_terminals_only() -> None:
    assert "\x1b" not in bash("note hello; step 'test colour' true").stdout


def test_requirements_can_leave_libvirt_out_where_it_cannot_be_built() -> None:
    result = subprocess.run(
        ["/usr/bin/python3", ROOT / "deploy/dev/requirements.py", "--without", "libvirt-python"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = result.stdout.splitlines()
    assert any(line.startswith("msgspec") for line in lines)
    assert any(line.startswith("pytest>") for line in lines)
    assert not any("libvirt" in line for line in lines)


def test_continuous_integration_runs_the_tests_and_nothing_else() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "exec ./dev test </dev/null" in script.read_text()


def dev_test(bin_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`./dev test --no-lint` with a pytest that tells its options, and fails where it runs the fast tests."""
    put(
        bin_dir,
        "python",
        'echo "runs: $*"; case "$*" in *worksteal*)'
        ' echo "= short test summary info ="; echo "FAILED one"; echo "= 1 failed ="; exit 1 ;; esac',
    )
    script = f"""
        source deploy/dev/test.sh
        LOGS={bin_dir}/logs
        is_root() {{ true; }}
        install_for() {{ :; }}
        run --no-lint {shlex.join(arguments)}
    """
    return bash(script, PATH=f"{bin_dir}:{os.environ['PATH']}")


def test_a_fast_test_that_fails_keeps_no_other_from_being_run_and_is_told_of_again_at_the_end(bin_dir: Path) -> None:
    result = dev_test(bin_dir)
    assert result.returncode == 1, result.stderr
    runs = [line for line in result.stdout.splitlines() if line.startswith("runs:")]
    (seeds,) = [run for run in runs if "-m many_seeds" in run]
    (fast,) = [run for run in runs if "-m not many_seeds" in run]
    for kind in ("unit", "contract", "property"):
        assert f"tests/{kind}" in fast and f"tests/{kind}" in seeds, "each of them once"
    (real,) = [run for run in runs if "tests/integration" in run]
    assert "tests/lab" in real and "tests/fuzz" in real and " -m " not in real.removeprefix("runs: -m pytest")
    assert "--no-loadscope-reorder" in real and "-p tests.side_by_side" in real
    assert not any("--cov" in run or "coverage" in run for run in runs)
    assert result.stdout.endswith("The fast tests, above:\nFAILED one\n= 1 failed =\n")


def test_coverage_is_measured_where_it_is_asked_for_and_summed_up_at_the_end(bin_dir: Path) -> None:
    result = dev_test(bin_dir, "--coverage")
    runs = [line for line in result.stdout.splitlines() if line.startswith("runs:")]
    (fast,) = [run for run in runs if "-m not many_seeds" in run]
    (real,) = [run for run in runs if "tests/integration" in run]
    assert "--cov " in fast and "--cov-append" not in fast and "--cov-append" in real
    assert runs[-1] == "runs: -m tests.coverage_summary"
    chosen, summary = dev_test(bin_dir, "--coverage", "tests/unit").stdout.splitlines()
    assert "--cov " in chosen and summary == runs[-1]


def test_what_is_chosen_by_hand_is_one_run_of_its_own(bin_dir: Path) -> None:
    result = dev_test(bin_dir, "tests/unit", "-k", "tags")
    assert result.returncode == 0, result.stderr
    (run,) = result.stdout.splitlines()
    assert run.endswith(" tests/unit -k tags") and "--cov" not in run and "--numprocesses" not in run


def test_a_part_of_the_fast_tests_needs_nothing_real(bin_dir: Path) -> None:
    (run,) = dev_test(bin_dir, "--fast", "-x").stdout.splitlines()
    assert run.endswith(" tests/unit tests/contract tests/property -x")


def test_prometheus_is_unpacked_and_never_installed(bin_dir: Path, tmp_path: Path) -> None:
    """Its package would start a server."""
    put(bin_dir, "apt-cache", "exit 0")
    put(bin_dir, "apt-get", f'echo "$@" >>{tmp_path}/asked; touch prometheus_1_amd64.deb')
    put(
        bin_dir,
        "dpkg-deb",
        'mkdir -p "$3/usr/bin"; touch "$3/usr/bin/prometheus" "$3/usr/bin/promtool"; chmod +x "$3"/usr/bin/*',
    )
    script = (
        f"PROMETHEUS={tmp_path}/here; unpack_prometheus monitoring; unpack_prometheus monitoring; unpack_prometheus lab"
    )
    result = bash(script, PATH=f"{bin_dir}:{os.environ['PATH']}")
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["prometheus", "promtool"]
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert "download prometheus" in asked and "install" not in asked
