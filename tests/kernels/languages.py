"""The kernels that the one suite runs on: how each is started, and how one says things in it.

Those that pip brings are always there. Others are added by ``KALLICHORE_KERNELS=name,…`` (or
``all``), which `nox -s kernels` sets to what it has found or installed.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kallichore.models import InterruptMode

__all__ = ["KERNELS", "Kernel"]

PYTHON: Final = (sys.executable, "-Xfrozen_modules=off", "-m")
DENO_PATH: Final = str(Path(sys.executable).with_name("deno"))
BY_SIGNAL, BY_MESSAGE = InterruptMode.SIGNAL, InterruptMode.MESSAGE


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel, and a few words of its language."""

    name: str
    argv: list[str]
    interrupts: list[InterruptMode]
    hello: str
    """Prints ``hello`` on stdout."""
    value: str
    """Has the value 42, or None where nothing has a value."""
    display: str
    """Shows something as HTML."""
    error: str
    """Fails."""
    error_words: str
    """What is in the error it fails with."""
    loop: str
    """Is busy for ever."""
    remember: str
    """Gives a variable a value."""
    recall: str
    """Prints the variable; ``kept`` while it is there, something else or an error if not."""
    question: str | None = None
    """Asks for input, and prints it."""
    crashes: list[tuple[str, int, str | None]] = field(default_factory=list)
    """Code that ends the kernel, the exit code, and the signal if any."""


IPYKERNEL: Final = Kernel(
    name="ipykernel",
    argv=[
        sys.executable,
        "-Xfrozen_modules=off",
        "-m",
        "ipykernel_launcher",
        "-f",
        "{connection_file}",
    ],
    interrupts=[BY_SIGNAL, BY_MESSAGE],
    hello="print('hello')",
    value="6 * 7",
    display="from IPython.display import HTML, display; display(HTML('<b>x</b>'))",
    error="1 / 0",
    error_words="ZeroDivisionError",
    loop="while True: pass",
    remember="x = 'kept'",
    recall="print(x)",
    question="print(input('who? '))",
    crashes=[
        ("import os; os._exit(3)", 3, None),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", -1, "SIGSEGV"),
    ],
)
BASH: Final = Kernel(
    name="bash",
    argv=[*PYTHON, "bash_kernel", "-f", "{connection_file}"],
    interrupts=[BY_SIGNAL],
    hello="echo hello",
    value="",
    display="echo '<b>x</b>' | displayHTML",
    error="no-such-command",
    error_words="127",
    loop="while :; do :; done",
    remember="x=kept",
    recall='echo "<$x>"',
    crashes=[("kill -9 $PPID", -1, "SIGKILL")],
)
DENO: Final = Kernel(
    name="deno",
    argv=[
        str(Path(sys.executable).with_name("deno")),
        "jupyter",
        "--kernel",
        "--conn",
        "{connection_file}",
    ],
    interrupts=[BY_MESSAGE],
    hello="console.log('hello')",
    value="6 * 7",
    display="Deno.jupyter.html`<b>x</b>`",
    error="throw new TypeError('Oops')",
    error_words="TypeError",
    loop="while (true) {}",
    remember="var x = 'kept'",
    recall="console.log(x)",
    question="console.log(prompt('who? '))",
    crashes=[("Deno.kill(Deno.pid, 'SIGKILL')", -1, "SIGKILL")],
)
R: Final = Kernel(
    name="ir",
    argv=["R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"],
    interrupts=[BY_SIGNAL],
    hello="cat('hello\\n')",
    value="6 * 7",
    display="IRdisplay::display_html('<b>x</b>')",
    error="stop('Oops')",
    error_words="Oops",
    loop="while (TRUE) {}",
    remember="x <- 'kept'",
    recall="cat(x)",
    question="cat(readline('who? '))",
    crashes=[("tools::pskill(Sys.getpid(), 9)", -1, "SIGKILL")],
)
RUST: Final = Kernel(
    name="evcxr",
    argv=["evcxr_jupyter", "--control_file", "{connection_file}"],
    interrupts=[BY_MESSAGE],
    hello='println!("hello")',
    value="6 * 7",
    display='println!("EVCXR_BEGIN_CONTENT text/html\\n<b>x</b>\\nEVCXR_END_CONTENT")',
    error="let x: u8 = 256;",
    error_words="256",
    loop="loop {}",
    remember='let x = "kept".to_string();',
    recall='println!("{}", x)',
)
NODE: Final = Kernel(
    name="tslab",
    argv=["tslab", "kernel", "--config-path", "{connection_file}"],
    interrupts=[BY_SIGNAL],
    hello="console.log('hello')",
    value="6 * 7",
    display="import * as tslab from 'tslab'; tslab.display.html('<b>x</b>')",
    error="throw new TypeError('Oops')",
    error_words="TypeError",
    loop="while (true) {}",
    remember="let x = 'kept'",
    recall="console.log(x)",
)
GO: Final = Kernel(
    name="gonb",
    argv=["gonb", "--kernel", "{connection_file}"],
    interrupts=[BY_SIGNAL],
    hello='%%\nfmt.Println("hello")',
    value="",
    display='import "github.com/janpfeifer/gonb/gonbui"\n%%\ngonbui.DisplayHtml("<b>x</b>")',
    error='%%\npanic("Oops")',
    error_words="Oops",
    loop="%%\nfor {}",
    remember='var x = "kept"',
    recall="%%\nfmt.Println(x)",
)

OF_PIP: Final = [IPYKERNEL, BASH, DENO]
OTHERS: Final = [R, RUST, NODE, GO]
_ASKED: Final = os.environ.get("KALLICHORE_KERNELS", "").split(",")
KERNELS: Final = OF_PIP + [one for one in OTHERS if one.name in _ASKED or "all" in _ASKED]
