"""Kernelspecs: where Jupyter keeps them, and the session that one of them describes.

The search follows "Jupyter paths" in Jupyter's documentation, without depending on Jupyter.
"""

from __future__ import annotations

import getpass
import os
import string
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kallichore import models
from kallichore.client.errors import KernelspecNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Kernelspec", "build_session", "find_kernelspec", "kernelspec_directories"]

NATIVE: Final = "python3"
_VERSION = f"{sys.version_info[0]}", f"{sys.version_info[0]}.{sys.version_info[1]}"
_THIS_PYTHON: Final = {"python", *(f"python{version}" for version in _VERSION)}
_FALSE: Final = {"", "0", "no", "n", "false", "off"}


class Kernelspec(msgspec.Struct, kw_only=True, frozen=True):
    """The content of a ``kernel.json``, and where it was found."""

    argv: list[str]
    display_name: str = ""
    language: str = ""
    interrupt_mode: models.InterruptMode = models.InterruptMode.SIGNAL
    env: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    name: str = ""
    resource_dir: str = ""


def kernelspec_directories(env: Mapping[str, str] | None = None) -> list[Path]:
    """List the directories that are searched, the most important first; they need not exist.

    `JUPYTER_PATH` comes first, then the user's and the environment's (in a virtual environment, or
    with `JUPYTER_PREFER_ENV_PATH`, the other way round), then the system's.
    """
    env = os.environ if env is None else env
    user = _user_directories(env)
    own = [Path(sys.prefix) / "share" / "jupyter"]
    system = [Path("/usr/local/share/jupyter"), Path("/usr/share/jupyter")]
    if "PROGRAMDATA" in env:
        system = [Path(env["PROGRAMDATA"]) / "jupyter"]
    middle = [*own, *user] if _prefers_environment(env) else [*user, *own]
    given = [Path(part) for part in env.get("JUPYTER_PATH", "").split(os.pathsep) if part]
    found = [directory / "kernels" for directory in (*given, *middle, *system)]
    return list(dict.fromkeys(found))


def _user_directories(env: Mapping[str, str]) -> list[Path]:
    """The user's data directory: the one named, or what the platforms have, in turn."""
    if env.get("JUPYTER_DATA_DIR"):
        return [Path(env["JUPYTER_DATA_DIR"])]
    home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    data = Path(env["XDG_DATA_HOME"]) if env.get("XDG_DATA_HOME") else home / ".local" / "share"
    windows = [Path(env["APPDATA"]) / "jupyter"] if env.get("APPDATA") else []
    return [*windows, data / "jupyter", home / "Library" / "Jupyter"]


def _prefers_environment(env: Mapping[str, str]) -> bool:
    chosen = env.get("JUPYTER_PREFER_ENV_PATH")
    return sys.prefix != sys.base_prefix if chosen is None else chosen.lower() not in _FALSE


def find_kernelspec(name: str, env: Mapping[str, str] | None = None) -> Kernelspec:
    """Find a kernelspec by its name, in any case, or by the path of its directory.

    ``python3``, where no such kernelspec is installed, is this interpreter if it has ipykernel.

    Raises:
        KernelspecNotFound: if there is none, with the names there are; or if it is no kernelspec.
    """
    if os.sep in name and (Path(name) / "kernel.json").is_file():
        return _read(Path(name))
    directories = dict(_installed(env))
    if name.lower() in directories:
        return _read(directories[name.lower()])
    if name.lower() == NATIVE and find_spec("ipykernel") is not None:
        return _native()
    known = ", ".join(sorted(directories)) or "none"
    raise KernelspecNotFound(f"There is no kernelspec named {name!r} (installed: {known}).")


def _installed(env: Mapping[str, str] | None) -> Iterator[tuple[str, Path]]:
    """Give every kernelspec's name and directory, the most important of a name last."""
    for directory in reversed(kernelspec_directories(env)):
        try:
            entries = sorted(directory.iterdir())
        except OSError:
            continue
        for entry in entries:
            if (entry / "kernel.json").is_file():
                yield entry.name.lower(), entry


def _read(directory: Path) -> Kernelspec:
    path = directory / "kernel.json"
    try:
        spec = msgspec.json.decode(path.read_bytes(), type=Kernelspec)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise KernelspecNotFound(f"{path} is no kernelspec: {exc}.") from exc
    # As Jupyter has it: a bare "python" means the one that is running.
    first = [sys.executable if part in _THIS_PYTHON else part for part in spec.argv[:1]]
    return msgspec.structs.replace(
        spec,
        argv=[*first, *spec.argv[1:]],
        name=directory.name.lower(),
        resource_dir=str(directory),
    )


def _native() -> Kernelspec:
    return Kernelspec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        display_name="Python 3 (ipykernel)",
        language="python",
        name=NATIVE,
    )


def build_session(
    spec: Kernelspec,
    session_id: str | None = None,
    *,
    display_name: str | None = None,
    session_mode: models.SessionMode = models.SessionMode.CONSOLE,
    working_directory: str = "",
    notebook_uri: str | None = None,
    env: Mapping[str, str] | None = None,
    connection_timeout: int | None = None,
) -> models.NewSession:
    """Describe the session that runs a kernelspec's kernel.

    ``{resource_dir}`` is replaced here, ``{connection_file}`` by the server. The kernelspec's
    variables (``${NAME}`` in them means ours) come before those of ``env``. Without a session id
    the kernelspec's name and a few random characters make one.
    """
    variables = {
        name: string.Template(value).safe_substitute(os.environ) for name, value in spec.env.items()
    }
    variables.update(env or {})
    return models.NewSession(
        session_id=session_id or f"{spec.name or 'kernel'}-{uuid.uuid4().hex[:8]}",
        display_name=display_name or spec.display_name or spec.name,
        language=spec.language,
        username=_user_name(),
        input_prompt=">>>" if spec.language == "python" else ">",
        continuation_prompt="..." if spec.language == "python" else "+",
        argv=[part.replace("{resource_dir}", spec.resource_dir) for part in spec.argv],
        session_mode=session_mode,
        working_directory=working_directory,
        notebook_uri=notebook_uri,
        env=[
            models.VarAction(action=models.VarActionType.REPLACE, name=name, value=value)
            for name, value in variables.items()
        ],
        connection_timeout=connection_timeout,
        interrupt_mode=spec.interrupt_mode,
        # A kernelspec's `kernel_protocol_version` tells which messages the kernel speaks, not that
        # it registers (JEP 66): ipykernel's says 5.5 and takes a connection file all the same.
        protocol_version="5.3",
        startup_environment=models.StartupEnvironment.NONE,
    )


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # an id that has no name, as in many containers
        return "unknown"
