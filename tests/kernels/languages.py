"""The kernels that the one suite runs on: how each is started, and how one says things in it.

Those that pip brings are always there, and so is a puppet that registers with the server (JEP 66),
which none of them does. Those of `toolchains` are added by ``KALLICHORE_KERNELS=name,…``, which
`nox -s kernels` sets to what it has found or installed. What a kernel cannot do is None here, and
said in docs/reference/kernels.md.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kallichore.models import InterruptMode
from tests.puppets import puppet_argv

__all__ = ["KERNELS", "OTHERS", "Kernel"]

PYTHON: Final = (sys.executable, "-Xfrozen_modules=off", "-m")
BY_SIGNAL, BY_MESSAGE = InterruptMode.SIGNAL, InterruptMode.MESSAGE
KILLED: Final = (-1, "SIGKILL")
CRASHED: Final = (-1, "SIGSEGV")
ENDED: Final = (3, None)


@dataclass(frozen=True, kw_only=True)
class Comm:
    """How to have a comm with a kernel: who opens it, what is then said, and what comes back."""

    code: str | None = None
    """Opens one from the kernel's side; without it, the client opens one."""
    target: str = "test"
    """The name under which it is opened."""
    opening: dict[str, Any] = field(default_factory=dict)
    """The data with which the client opens it."""
    says: str | None = "Kalli"
    """What the client says in it then, if anything."""
    hears: str | None = "Kalli"
    """What is in the kernel's answer, if it gives one."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel, and a few words of its language."""

    name: str
    argv: list[str]
    changes: dict[str, Any] = field(default_factory=dict)
    """Fields of its sessions."""
    interrupts: list[InterruptMode]
    """The ways in which it can be interrupted, that of its kernelspec first."""
    hello: str
    """Prints ``hello`` on stdout."""
    value: str | None
    """Has the value 42, or None where nothing has a value."""
    display: str
    """Shows ``<b>x</b>`` as HTML."""
    error: str
    """Fails."""
    error_words: str
    """What is in the error it fails with."""
    loop: str
    """Prints ``go``, and is busy for ever."""
    remember: str
    """Gives a variable a value."""
    recall: str
    """Prints the variable; ``kept`` while it is there, something else or an error if not."""
    question: str | None = None
    """Asks for input, and prints it."""
    prompt: str = "who? "
    """What it asks."""
    comm: Comm | None = None
    """A comm with it."""
    crashes: list[tuple[str, tuple[int, str | None]]]
    """Code that ends the kernel, with the exit code, and the signal if any."""


IPYKERNEL: Final = Kernel(
    name="ipykernel",
    argv=[*PYTHON, "ipykernel_launcher", "-f", "{connection_file}"],
    interrupts=[BY_SIGNAL, BY_MESSAGE],
    hello="print('hello')",
    value="6 * 7",
    display="from IPython.display import HTML, display; display(HTML('<b>x</b>'))",
    error="1 / 0",
    error_words="ZeroDivisionError",
    loop="print('go', flush=True)\nwhile True: pass",
    remember="x = 'kept'",
    recall="print(x)",
    question="print(input('who? '))",
    comm=Comm(
        code="from comm import create_comm; c = create_comm('test')\n"
        "c.on_msg(lambda m: c.send(m['content']['data']))"
    ),
    crashes=[
        ("import os; os._exit(3)", ENDED),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", CRASHED),
    ],
)
BASH: Final = Kernel(
    name="bash",
    argv=[*PYTHON, "bash_kernel", "-f", "{connection_file}"],
    interrupts=[BY_SIGNAL],
    hello="echo hello",
    value=None,
    display="echo '<b>x</b>' | displayHTML",
    error="no-such-command",
    error_words="127",
    loop="echo go; while :; do :; done",
    remember="x=kept",
    recall='echo "<$x>"',
    crashes=[("kill -9 $PPID", KILLED), ("kill -SEGV $PPID", CRASHED)],
)
DENO: Final = Kernel(
    name="deno",
    argv=[
        str(Path(sys.executable).with_name("deno")),
        *("jupyter", "--kernel", "--conn", "{connection_file}"),
    ],
    interrupts=[BY_MESSAGE],
    hello="console.log('hello')",
    value="6 * 7",
    display="Deno.jupyter.html`<b>x</b>`",
    error="throw new TypeError('Oops')",
    error_words="TypeError",
    loop="console.log('go'); while (true) {}",
    remember="var x = 'kept'",
    recall="console.log(x)",
    question="console.log(prompt('who? '))",
    comm=Comm(
        code="await Deno.jupyter.broadcast('comm_open',"
        " {comm_id: 'its', target_name: 'test', data: {}})",
        says=None,
        hears=None,
    ),
    crashes=[
        ("Deno.exit(3)", ENDED),
        ("Deno.kill(Deno.pid, 'SIGKILL')", KILLED),
        ("Deno.kill(Deno.pid, 'SIGABRT')", (-1, "SIGABRT")),
    ],
)
PUPPET: Final = Kernel(
    name="puppet",
    argv=puppet_argv(),
    changes={"protocol_version": "5.5"},
    interrupts=[BY_SIGNAL, BY_MESSAGE],
    hello="say('hello\\n')",
    value="show({'text/plain': '42'})",
    display="display({'text/html': '<b>x</b>'})",
    error="1 / 0",
    error_words="ZeroDivisionError",
    loop="say('go')\nwhile True: pass",
    remember="x = 'kept'",
    recall="say(x)",
    question="say(question('who? '))",
    comm=Comm(
        code="publish('comm_open', {'comm_id': 'its', 'target_name': 'test', 'data': {}})",
    ),
    crashes=[
        ("os._exit(3)", ENDED),
        ("os.kill(os.getpid(), signal.SIGSEGV)", CRASHED),
    ],
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
    loop="cat('go\\n')\nwhile (TRUE) {}",
    remember="x <- 'kept'",
    recall="cat(x)",
    question="cat(readline('who? '))",
    comm=Comm(
        code="it <- IRkernel::comm_manager()$new_comm('test')\n"
        "it$on_msg(function(data) it$send(data))\nit$open(list())"
    ),
    crashes=[
        (".Internal(quit('no', 3L, FALSE))", ENDED),
        ("tools::pskill(Sys.getpid(), 9)", KILLED),
        ("tools::pskill(Sys.getpid(), 11)", CRASHED),
    ],
)
ASK_IN_RUST: Final = """println!("EVCXR_INPUT_REQUEST:who? ");
let mut line = String::new();
std::io::stdin().read_line(&mut line).unwrap();
print!("{}", line);"""
"""What evcxr_input::get_string does, without waiting for Cargo to fetch it."""
KILL_IN_RUST: Final = """let it = std::os::unix::process::parent_id().to_string();
std::process::Command::new("kill").args(["-9", &it]).status();"""
"""The code runs in a child of the kernel."""
RUST: Final = Kernel(
    name="evcxr",
    argv=["evcxr_jupyter", "--control_file", "{connection_file}"],
    interrupts=[BY_MESSAGE],
    hello='println!("hello")',
    value="6 * 7",
    display='println!("EVCXR_BEGIN_CONTENT text/html\\n<b>x</b>\\nEVCXR_END_CONTENT")',
    error="let x: u8 = 256;",
    error_words="256",
    loop='println!("go"); loop {}',
    remember='let x = "kept".to_string();',
    recall='println!("{}", x)',
    comm=Comm(
        target="evcxr-cargo-check",
        opening={"code": "let x: u8 = true;"},
        says=None,
        hears="mismatched types",
    ),
    question=ASK_IN_RUST,
    crashes=[(KILL_IN_RUST, KILLED)],
)
NODE: Final = Kernel(
    name="tslab",
    argv=["tslab", "kernel", "--config-path", "{connection_file}"],
    interrupts=[BY_SIGNAL],
    hello="console.log('hello')",
    value=None,
    display="import * as tslab from 'tslab'; tslab.display.html('<b>x</b>')",
    error="throw new TypeError('Oops')",
    error_words="TypeError",
    loop="console.log('go'); while (true) {}",
    remember="let x = 'kept'",
    recall="console.log(x)",
    crashes=[
        ("process.exit(3)", ENDED),
        ("process.kill(process.pid, 'SIGKILL')", KILLED),
        ("process.kill(process.pid, 'SIGSEGV')", CRASHED),
    ],
)
GO: Final = Kernel(
    name="gonb",
    argv=["gonb", "--kernel", "{connection_file}"],
    interrupts=[BY_MESSAGE, BY_SIGNAL],
    hello='%%\nfmt.Println("hello")',
    value=None,
    display="%noautoget\n%goflags -mod=mod\n"
    "!*go mod edit -require=github.com/janpfeifer/gonb@v0.11.3\n"
    'import "github.com/janpfeifer/gonb/gonbui"\n%%\ngonbui.DisplayHtml("<b>x</b>")',
    error='%%\nvar y int = "Oops"',
    error_words="cannot use",
    loop='%%\nfmt.Println("go")\nfor {}',
    remember='var x = "kept"',
    recall="%%\nfmt.Println(x)",
    question='%with_inputs\n!read x; echo "$x"',
    prompt=" ",
    crashes=[("!kill -9 $PPID", KILLED), ("!kill -SEGV $PPID", (2, None))],
)

OF_PIP: Final = [IPYKERNEL, BASH, DENO, PUPPET]
OTHERS: Final = [R, RUST, NODE, GO]
_ASKED: Final = os.environ.get("KALLICHORE_KERNELS", "").split(",")
KERNELS: Final = OF_PIP + [one for one in OTHERS if one.name in _ASKED]
