"""How a kernel's process is started: its arguments, its environment and its startup step.

Decides only; `kallichore.kernel.process` carries it out. What has to be looked up on disk is looked
up by the functions `find_executable`, `find_shell` and `usable_directory`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from kallichore.models import StartupEnvironment, VarActionType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kallichore.models import NewSession, VarAction

__all__ = [
    "SERVER_MARK",
    "SESSION_MARK",
    "Launch",
    "ShellNoiseFilter",
    "StartupStep",
    "find_executable",
    "find_shell",
    "plan",
    "resolve_env",
    "startup_details",
    "usable_directory",
]

SESSION_MARK: Final = "KALLICHORE_SESSION"
"""The environment variable by which a kernel's descendants are found: the session's id."""
SERVER_MARK: Final = "KALLICHORE_SERVER"
"""The same for the server: its id."""

DEFAULT_SHELLS: Final = ("/bin/bash", "/bin/sh")
NO_SHELLS: Final = frozenset({"nologin", "false", "true", "nu", "pwsh", "xonsh", "elvish"})
"""What may stand in ``$SHELL`` and takes no command as a Unix shell does."""
LOGIN_FLAGS: Final = {"bash": "--login", "zsh": "--login", "csh": "-d", "tcsh": "-d"}

MARK_AND_EXEC: Final = 'true 2>/dev/null >"$1"; shift; exec "$@"'
"""Said by /bin/sh, whatever the user's shell is: leave the marker, and become the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupStep:
    """What a shell does before it becomes the kernel."""

    kind: StartupEnvironment
    shell: str
    argument: str
    """The command or script as the client gave it; empty for a plain shell."""
    marker_path: str
    """This file is there once the step has succeeded."""

    @property
    def interactive(self) -> bool:
        """Whether the shell believes that it talks to a person."""
        return self.kind is not StartupEnvironment.SHELL


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything needed to start a process."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    startup: StartupStep | None = None


def plan(
    new_session: NewSession,
    *,
    base_env: Mapping[str, str],
    connection_file: str,
    session_env: Mapping[str, str],
    marker_path: str,
    shell: str | None = None,
    cwd: str | None = None,
) -> Launch:
    """Work out how a session's kernel is to be started.

    Args:
        new_session: What the client asked for.
        base_env: The server's environment.
        connection_file: Takes the place of ``{connection_file}`` in the arguments.
        session_env: Variables of ours, which no action of the client changes.
        marker_path: Where a startup step may leave its marker; nothing is there yet.
        shell: The shell for a startup step; looked up when not given.
        cwd: The kernel's working directory; the session's or else ours when not given.
    """
    argv = [argument.replace("{connection_file}", connection_file) for argument in new_session.argv]
    env = {**resolve_env(base_env, new_session.env), **session_env}
    directory = cwd or usable_directory(new_session.working_directory) or str(Path.cwd())
    launch = Launch(argv=argv, env=env, cwd=directory)
    if new_session.startup_environment is StartupEnvironment.NONE or not argv:
        return launch
    step = StartupStep(
        kind=new_session.startup_environment,
        shell=shell or find_shell(base_env),
        argument=new_session.startup_environment_arg or "",
        marker_path=marker_path,
    )
    return replace(launch, argv=shell_argv(step, argv, directory), startup=step)


def resolve_env(base: Mapping[str, str], actions: Sequence[VarAction]) -> dict[str, str]:
    """Carry out changes to an environment, in order; what is joined is joined as it is."""
    env = dict(base)
    for action in actions:
        before = env.get(action.name, "")
        match action.action:
            case VarActionType.REPLACE:
                env[action.name] = action.value
            case VarActionType.APPEND:
                env[action.name] = before + action.value
            case VarActionType.PREPEND:
                env[action.name] = action.value + before
    return env


def shell_argv(step: StartupStep, argv: Sequence[str], cwd: str) -> list[str]:
    """Return the arguments of a shell that does a startup step and then becomes the kernel.

    What differs between shells is kept to quoting and to one conjunction: the rest is said by
    /bin/sh, which the shell becomes first. So its pid is the kernel's.
    """
    name = Path(step.shell).name
    quote = QUOTES.get(name, quote_posix)
    become = ["/bin/sh", "-c", MARK_AND_EXEC, "sh", step.marker_path, *argv]
    text = "exec " + " ".join(map(quote, become))
    if not step.interactive:
        return [step.shell, LOGIN_FLAGS.get(name, "-l"), "-c", text]
    if step.kind is StartupEnvironment.COMMAND:
        first = f"eval {quote(step.argument)}"
    else:
        script = str(Path(cwd) / os.path.expanduser(step.argument))  # noqa: PTH111 - raises nothing
        first = f"{SOURCE_COMMANDS.get(name, '.')} {quote(script)}"
    return [step.shell, "-i", "-c", first + ("; and " if name == "fish" else " && ") + text]


def quote_posix(text: str) -> str:
    """Quote for bash, dash, ksh, zsh and their like."""
    return "'" + text.replace("'", "'\\''") + "'"


def quote_fish(text: str) -> str:
    """Quote for fish, in which a backslash counts within quotes too."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_csh(text: str) -> str:
    """Quote for csh and tcsh, in which quotes protect neither ``!`` nor the end of a line."""
    return quote_posix(text).replace("!", "\\!").replace("\n", "\\\n")


QUOTES: Final[Mapping[str, Callable[[str], str]]] = {
    "fish": quote_fish,
    "csh": quote_csh,
    "tcsh": quote_csh,
}
SOURCE_COMMANDS: Final = {"fish": "source", "csh": "source", "tcsh": "source"}


def find_executable(argv0: str, env_path: str | None, cwd: str = "") -> str | None:
    """Look a program up as the system does: a path as it is, a name in the directories of PATH."""
    if "/" in argv0:
        candidates = [Path(cwd, argv0)]
    else:
        directories = (os.defpath if env_path is None else env_path).split(os.pathsep)
        candidates = [Path(cwd, directory, argv0) for directory in directories]
    for candidate in candidates:
        # os.path raises nothing, where a directory is closed to us or a name is too long.
        if argv0 and os.path.isfile(candidate) and os.access(candidate, os.X_OK):  # noqa: PTH113
            return str(candidate.absolute())
    return None


def find_shell(env: Mapping[str, str]) -> str:
    """Return the user's shell where it is one that we can use, else bash, else sh."""
    for shell in (env.get("SHELL", ""), *DEFAULT_SHELLS):
        if Path(shell).name not in NO_SHELLS and os.access(shell, os.X_OK):
            return shell
    return DEFAULT_SHELLS[-1]


def usable_directory(wanted: str) -> str | None:
    """Return a directory as an absolute path, or None when it is empty or none that is there."""
    usable = wanted and os.path.isdir(wanted)  # noqa: PTH112 - raises nothing
    return str(Path(wanted).absolute()) if usable else None


def startup_details(step: StartupStep, *, succeeded: bool) -> str:
    """Say for a person which part of a start has failed: see `Process.startup_succeeded`."""
    lines = [f"Shell: {step.shell}"]
    if step.interactive:
        lines.append(f"Startup {step.kind}: {step.argument}")
    if succeeded:
        lines.append("Kernel failed to start")
    else:
        lines.append(f"Startup {step.kind} failed")
    return "\n".join(lines)


TERMINAL_NOISE: Final = b": cannot set terminal process group (#): Inappropriate ioctl for device\n"
JOBS_NOISE: Final = b": no job control in this shell\n"
DASH_NOISE: Final = b": #: can't access tty; job control turned off\n"
CSH_NOISE: Final = (
    b"Warning: no access to tty (Bad file descriptor).\n",
    b"Thus no job control in this shell.\n",
)
FISH_NOISE: Final = (
    b"warning: Could not set up terminal.\n",
    b"warning: TERM environment variable not set.\n",
    b"warning: Using fallback terminal type 'xterm-256color'.\n",
)
NOISE: Final[Mapping[str, tuple[bytes, ...]]] = {
    "bash": (TERMINAL_NOISE, JOBS_NOISE),
    "sh": (TERMINAL_NOISE, JOBS_NOISE, DASH_NOISE),
    "dash": (DASH_NOISE,),
    "csh": CSH_NOISE,
    "fish": FISH_NOISE,
    "tcsh": CSH_NOISE,
}
"""What shells say, in this order; before a colon at the beginning the shell names itself."""


@final
class ShellNoiseFilter:
    """Takes from the beginning of stderr what an interactive shell without a terminal complains of.

    Only these lines, each at most once, in their order, before anything else; all other bytes pass
    unchanged. Bytes are held back only while they may be the beginning of such a line.
    """

    def __init__(self, step: StartupStep | None) -> None:
        """Expect what the step's shell says, or nothing at all."""
        self._expected: list[tuple[bytes, ...]] = []
        self._held = b""
        if step is not None and step.interactive:
            name = Path(step.shell).name
            called = (os.fsencode(step.shell), os.fsencode(name))
            for line in NOISE.get(name, ()):
                spellings = tuple(n + line for n in called) if line[:1] == b":" else (line,)
                self._expected.append(spellings)

    def feed(self, data: bytes) -> bytes:
        """Take what was read and return what of it may be passed on now."""
        self._held += data
        while self._expected and self._held:
            line, newline, rest = self._held.partition(b"\n")
            matching = self._first_match(line + newline)
            if matching is None:
                self._expected.clear()
            elif newline:
                self._held = rest
                del self._expected[: matching + 1]
            else:
                return b""
        return self.finish()

    def finish(self) -> bytes:
        """Return what is still held back: nothing more will come."""
        held, self._held = self._held, b""
        return held

    def _first_match(self, beginning: bytes) -> int | None:
        for index, spellings in enumerate(self._expected):
            if any(may_begin(beginning, noise) for noise in spellings):
                return index
        return None


def may_begin(beginning: bytes, noise: bytes) -> bool:
    """Say whether a line may begin so, where ``#`` stands for any number."""
    before, number, after = noise.partition(b"#")
    if not number or len(beginning) <= len(before):
        return noise.startswith(beginning)
    rest = beginning[len(before) :].lstrip(b"-0123456789")
    return beginning.startswith(before) and after.startswith(rest)
