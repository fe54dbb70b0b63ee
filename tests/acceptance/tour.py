"""The README's tour, typed as it stands there, on a platform that has just been started.

What it shows of the command line is typed after it, into the same shell.
"""

import json
import re
import subprocess
from pathlib import Path

from tests.acceptance.platforms import Platform, clean_environment, running
from tests.acceptance.verdict import Verdict

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = ("Two minutes", "Weights from the command line")
SHOWN_HOME = "/home/ada"
END_OF_STEP = "--- end of step ---"

_BLOCK = re.compile(
    r"```bash\n(?P<commands>.*?)```(?:\n```(?:json|text)\n(?P<output>.*?)```)?", re.DOTALL
)


def steps() -> list[tuple[str, str]]:
    """Read the commands of the tour, each with the output that the README shows."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [
        (m["commands"], (m["output"] or "").strip())
        for section in SECTIONS
        for m in _BLOCK.finditer(text.split(f"## {section}\n")[1].split("\n## ")[0])
    ]


def play(platform: Platform, home: Path) -> list[str]:
    """Type the commands into one shell, and return what each step printed."""
    password = platform.one_time_password()
    script = []
    for commands, _ in steps():
        typed = commands.replace("http://127.0.0.1:8000", platform.url)
        script.append(re.sub(r"read .* PASSWORD", f"PASSWORD={password}", typed))
        script.append(f"echo; echo '{END_OF_STEP}'; sleep 2")
    done = subprocess.run(
        ["bash", "-uc", "\n".join(script)],
        cwd=ROOT,
        env=clean_environment() | {"HOME": str(home), "XDG_CONFIG_HOME": "", "XDG_STATE_HOME": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    told = done.stdout.replace(str(home), SHOWN_HOME)
    return [part.strip() for part in told.split(END_OF_STEP)[:-1]]


def follow(folder: Path) -> Verdict:
    with running(folder) as platform:
        printed = play(platform, folder)
    shown = [output for _, output in steps()]
    wrong = [
        n for n, (a, b) in enumerate(zip(printed, shown, strict=False), 1) if _form(a) != _form(b)
    ]
    if len(printed) != len(shown) or wrong:
        first = printed[wrong[0] - 1] if wrong else "nothing more"
        figure = f"steps {wrong} of {len(shown)} print something else, the first: {first[:400]}"
        return Verdict(is_met=False, figure=figure)
    return Verdict(is_met=True, figure=f"{len(shown)} steps print what the README shows")


def _form(text: str) -> object:
    """Reduce an output to what does not change: the names in JSON, the words of a line."""
    try:
        return sorted(json.loads(text))
    except ValueError:
        words = re.sub(r"\b[0-9a-f]{12}\b|\b\d+\b", "*", text)
        return [" ".join(line.split()) for line in words.splitlines()]
