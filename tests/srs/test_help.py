"""What commands print for --help, and what they say of values that no flag takes."""

import os
import re
import subprocess
from dataclasses import MISSING, fields

import pytest

from srs.attack.settings import AttackSettings
from srs.commands._allocate_settings import AllocateSettings
from srs.commands.report import ReportSettings
from srs.predict.settings import PredictSettings
from srs.run.settings import GROUPS, CertifySettings
from srs.score.settings import ScoreSettings
from srs.verify.settings import VerifySettings
from tests.srs.programs import assert_refused, call, program
from training import PRESETS, ROUTER_PRESETS

TRAINING = {**PRESETS, **ROUTER_PRESETS}

SETTINGS = {
    "allocate": AllocateSettings,
    "attack": AttackSettings,
    "certify": CertifySettings,
    "predict": PredictSettings,
    "report": ReportSettings,
    "score": ScoreSettings,
    "verify": VerifySettings,
}


def entries(text):
    """The flags of a help and what it says of each, in one line."""
    found = {}
    for line in text.splitlines():
        if head := re.match(r"  (-\S+.*?)(?:  +(\S.*))?$", line):
            name = re.sub(r"[ ,].*", "", head[1].removeprefix("-h, "))
            assert name not in found
            found[name] = head[2] or ""
            continue
        if line.startswith(" " * 24) and found:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("command", SETTINGS)
def test_every_flag_is_there_once_with_a_default_that_is_true(command, width, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", str(width))
    process = call(command, tmp_path, "--help")
    assert (process.returncode, process.stderr) == (0, "")
    lines = process.stdout.splitlines()
    assert max(map(len, lines)) <= max(width, 77)  # nothing is wider but names of choices
    assert [line for line in lines if len(line) > min(width, 100) and "{" not in line] == []
    assert "None" not in process.stdout
    said = entries(process.stdout)
    for field in fields(SETTINGS[command]):
        name = f"--{field.name.replace('_', '-')}"
        if field.default is MISSING or name not in said:
            positional = ("run", "runs", "images", "radii", "logs")
            assert f"  [{field.name.upper()}]" in process.stdout or field.name in positional
            continue
        text = said.pop(name)
        assert text.count("Default") <= 1
        if field.default not in (None, False, ()):
            assert text.endswith(f"Default: {field.default}.")
    assert said.keys() == {"--help", "--version", "--tyro-print-completion"}


@pytest.mark.parametrize("preset", TRAINING)
def test_a_preset_shows_its_own_values(preset, tmp_path):
    process = call("train", tmp_path, preset, "--help")
    assert process.stdout.startswith(f"usage: srs-train {preset} [flags]\n")
    said, settings = entries(process.stdout), TRAINING[preset][1]
    for field in fields(settings):
        value, name = getattr(settings, field.name), field.name.replace("_", "-")
        if value is True:
            assert said[f"--no-{name}"].startswith("Switch this off: ")
        elif value is not None and value is not False:
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
            assert said[f"--{name}"].endswith(f"Default: {shown}.")
        else:
            assert f"--{name}" in said


def test_presets_are_listed_first(tmp_path):
    for flags in ((), ("nothing",)):
        text = call("train", tmp_path, *flags, "--help").stdout
        assert all(f"\n  {name} " in text for name in TRAINING)
        assert "--lr" not in text


def test_settings_of_a_file_are_the_defaults_of_its_help(tmp_path):
    (tmp_path / "mine.yaml").write_text("n: 77\nracing: true\nsigma_min: 0.25\n")
    said = entries(call("certify", tmp_path, "--config", "mine.yaml", "--help").stdout)
    assert said["--n"].endswith("Default: 77.")
    assert said["--no-racing"].startswith("Switch this off: ")


def test_the_help_of_certification_is_in_groups_the_most_used_flags_first(tmp_path):
    names = [name for group in GROUPS.values() for name in group]
    assert sorted(names) == sorted(field.name for field in fields(CertifySettings))
    text = call("certify", tmp_path, "--help").stdout
    headings = ["most used", "what is certified", "noise levels", "certification", "regions", "run", "always"]
    assert re.findall(r"^(\w.*):$", text, re.MULTILINE) == headings
    assert list(entries(text))[:5] == ["--checkpoint", "--dataset", "--n", "--out", "--resume"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--max", "many"), "srs-certify: --max many: expected INT. For full helptext"),
        (("--sigma-min", "0,3"), "srs-certify: --sigma-min 0,3: expected FLOAT. For full helptext"),
        (("--n0", "many"), "srs-certify: --n0: invalid literal for int() with base 10: 'many'. For full helptext"),
        (("--rule", "best"), "invalid choice 'best' for argument '--rule'"),
        (("--out",), "srs-certify: Missing value for argument '--out'"),
        (("--nosuch", "3"), "srs-certify: --nosuch: no such option. For full helptext, run srs-certify --help\n"),
        (("--nosuch", "--other=3"), "srs-certify: --nosuch, --other=3: no such option. For"),
        (("digits",), "srs-certify: digits: no such argument. For"),
        (
            ("--sigma", "1"),
            "--sigma: no such option; did you mean --sigma-max or --sigma-min or --sigma-step or",
        ),
        (("--sigmas",), "srs-certify: --sigmas: no value; give one or several, or leave it out\n"),
        (("--expert", "--n", "5"), "srs-certify: --expert: no value; give one or several"),
        (("",), "srs-certify: '': no such argument. For"),
        (("", "x"), "srs-certify: '', x: no such argument. For"),
        (("--lrr", "-0.5"), "srs-certify: --lrr: no such option"),
        (("--sigma", "1", "--max-m=3"), "srs-certify: --sigma, --max-m=3: no such option; did you mean --sigma-max or"),
    ],
)
def test_a_value_that_no_flag_takes_is_said_in_a_short_line(tmp_path, flags, message):
    process = call("certify", tmp_path, *flags)
    assert_refused(process, "srs-certify", message)
    assert "None" not in process.stderr
    assert len(process.stderr) < 300


@pytest.mark.parametrize("columns", [40, 80])
def test_a_terminal_shows_the_same_line(tmp_path, columns):
    """Colours are for what is drawn, and of that nothing is left."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"}
    command = [*program("certify"), "--sigma", "1"]
    code = subprocess.run(command, cwd=tmp_path, stdout=theirs, stderr=theirs, env=environment, check=False).returncode
    os.close(theirs)
    shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert code == 2
    assert shown == (
        "srs-certify: --sigma: no such option; did you mean --sigma-max or --sigma-min or --sigma-step or --sigmas? "
        "For full helptext, run srs-certify --help\r\n"
    )


def test_a_list_without_values_replaces_that_of_a_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("n: 100\nrungs: [10, 50]\n")
    settings = ("--config", "mine.yaml", "--n", "20")
    assert_refused(
        call("certify", tmp_path, *settings), "srs-certify", "--rungs 10 50: numbers of samples must increase"
    )
    assert_refused(call("certify", tmp_path, *settings, "--rungs", "--max", "0"), "srs-certify", "--max 0: must be")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "srs-train: no preset: the first word is one of digits, mnist-quick, "),
        (("nothing",), "srs-train: nothing is no preset: the first word is one of digits, "),
        (("--epochs", "3", "digits"), "srs-train: --epochs is no preset: the first word is one of digits, "),
        (("",), "srs-train: '' is no preset: the first word is one of digits, "),
        (
            ("digits", "--epoch", "3"),
            "srs-train: --epoch: no such option; did you mean --epochs or --finetune-epochs? For full helptext, run "
            "srs-train digits --help\n",
        ),
        (
            ("mnist_quick", "--nosuch", "3"),
            "srs-train: --nosuch: no such option. For full helptext, run srs-train mnist-quick ",
        ),
        (("digits", "--sigmas"), "srs-train: --sigmas: no value"),
    ],
)
def test_what_no_preset_has_is_said_in_a_short_line(tmp_path, args, message):
    process = call("train", tmp_path, *args)
    assert_refused(process, "srs-train", message)
    assert len(process.stderr) < 300


@pytest.mark.parametrize("command", ["certify", "train"])
def test_completion_scripts_know_the_flags(tmp_path, command):
    for shell in ("bash", "zsh", "fish"):
        process = call(command, tmp_path, "--tyro-print-completion", shell)
        assert process.returncode == 0, process.stderr
        assert "--sigma-min" in process.stdout or "sigma-min" in process.stdout
