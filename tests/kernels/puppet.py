"""A small, fast kernel that does what a test tells it to, good or wicked.

Started as ``python puppet.py {connection_file} OPTIONS``, the options being a JSON object (see
`Options`). The code it is given to execute is Python with the functions of `Puppet.names` at hand,
so a test says in one line what is to go wrong. Sockets are served by threads of their own, as real
kernels do: one for control, one for the heartbeat, one for iopub.
"""

# ruff: noqa: TID251 - a process of its own, without Trio

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import zmq
from deeds import meet, spawn  # type: ignore[import-not-found]  # beside this script
from puppet_options import Options  # type: ignore[import-not-found]
from puppet_wire import DELIMITER, INFO, compose  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from collections.abc import Callable

PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")

Json = dict[str, Any]


class Ending(BaseException):
    """The puppet is to exit now."""


class Puppet:
    """The kernel."""

    def __init__(self, connection: Json, options: Options) -> None:
        """Prepare; nothing is bound yet."""
        self.connection = connection
        self.options = options
        self.key = connection["key"] if options.key is None else options.key
        self.session = os.urandom(8).hex()
        self.count = 0
        self.executing = False
        self.ending = False
        self.main = threading.current_thread()
        self.deaf = False  # let heartbeats go unanswered
        self.parent: Json = {}
        self.identity = b""
        self.parts = threading.local()
        self.iopub_over = threading.Event()
        self.context = zmq.Context()
        self.names: Json = {
            "answer": self.answer,
            "close": self.close,
            "display": self.display,
            "fail": self.fail,
            "kernel": self,
            "meet": meet,
            "os": os,
            "publish": self.publish,
            "question": self.question,
            "raw": self.raw,
            "say": self.say,
            "show": self.show,
            "signal": signal,
            "spawn": spawn,
            "sys": sys,
            "time": time,
        }

    # -- sockets --------------------------------------------------------------------------------

    def bind(self) -> None:
        """Bind everything, at the ports of the connection file or at ports of our own."""
        kinds = {"iopub": zmq.XPUB, "hb": zmq.REP}
        self.sockets: dict[str, zmq.Socket[bytes]] = {}
        for name in ("shell", "iopub", "stdin", "control", "hb"):
            bound = self.context.socket(kinds.get(name, zmq.ROUTER))
            bound.linger = 1000
            bound.sndhwm = bound.rcvhwm = 0
            if name == "iopub":
                bound.set(zmq.XPUB_VERBOSE, 1)
            address = f"tcp://{self.connection['ip']}"
            port = self.connection.get(f"{name}_port")
            if port is None:
                self.connection[f"{name}_port"] = bound.bind_to_random_port(address)
            else:
                bound.bind(f"{address}:{port}")
            self.sockets[name] = bound
        self.published = self.context.socket(zmq.PULL)
        self.published.rcvhwm = 0
        self.published.bind("inproc://iopub")

    def register(self) -> None:
        """Tell the server our ports (JEP 66), perhaps wrongly at first."""
        ports = {name: self.connection[name] for name in PORTS}
        for attempt in self.options.register:
            request = self.context.socket(zmq.REQ)
            request.linger = 0
            request.connect(f"tcp://127.0.0.1:{self.connection['registration_port']}")
            content = ports | attempt.get("content", {})
            frames = self.frames("handshake_request", content, {}, key=attempt.get("key"))
            request.send_multipart([b"no message"] if "raw" in attempt else frames)
            answer = request.recv_multipart()
            request.close()
            if "tell" in attempt:
                meet(attempt["tell"], json.loads(answer[5]))

    def close(self, name: str) -> None:
        """Close one of our sockets, and live on."""
        if name == "iopub":
            self.outlet().send_multipart([b"close"])
        else:
            self.sockets[name].close(0)

    # -- messages -------------------------------------------------------------------------------

    def frames(
        self,
        msg_type: str,
        content: object,
        parent: object,
        *,
        key: str | None = None,
        metadata: object = None,
        buffers: tuple[bytes, ...] = (),
    ) -> list[bytes]:
        """Make a signed message; parts that are bytes already go as they are."""
        parts = (self.header(msg_type), parent, metadata or {}, content)
        frames: list[bytes] = compose(self.key if key is None else key, parts, buffers)
        return frames

    def header(self, msg_type: str) -> Json:
        """Make a message's header."""
        return {
            "msg_id": os.urandom(8).hex(),
            "msg_type": msg_type,
            "username": "puppet",
            "session": self.session,
            "date": datetime.now(UTC).isoformat(),
            "version": "5.4",
        }

    def outlet(self) -> zmq.Socket[bytes]:
        """Give this thread's way to iopub."""
        if not hasattr(self.parts, "outlet"):
            self.parts.outlet = self.context.socket(zmq.PUSH)
            self.parts.outlet.sndhwm = 0
            self.parts.outlet.linger = 1000
            self.parts.outlet.connect("inproc://iopub")
        outlet: zmq.Socket[bytes] = self.parts.outlet
        return outlet

    def raw(self, *frames: bytes, topic: bytes = b"topic") -> None:
        """Publish frames as they are."""
        self.send(self.outlet(), [topic, *frames])

    def send(self, socket: zmq.Socket[bytes], frames: list[bytes]) -> None:
        """Send a message whole, whatever signal comes."""
        self.parts.sending = True
        socket.send_multipart(frames)
        self.parts.sending = False
        if self.ending and self.executing and threading.current_thread() is self.main:
            raise Ending

    def publish(
        self, msg_type: str, content: object, *, parent: object = None, **more: Any
    ) -> None:
        """Publish a message on iopub."""
        parent = self.parent if parent is None else parent
        self.raw(*self.frames(msg_type, content, parent, **more))

    def say(self, text: str, name: str = "stdout") -> None:
        """Publish a stream."""
        self.publish("stream", {"name": name, "text": text})

    def display(self, data: Json, metadata: Json | None = None) -> None:
        """Publish a display."""
        self.publish("display_data", {"data": data, "metadata": metadata or {}, "transient": {}})

    def show(self, data: Json) -> None:
        """Publish a result."""
        content = {"execution_count": self.count, "data": data, "metadata": {}}
        self.publish("execute_result", content)

    def fail(self, name: str = "Oops", message: str = "it failed") -> None:
        """Raise an error of the given name."""
        raise type(name, (Exception,), {})(message)

    def question(self, prompt: str, *, password: bool = False) -> str:
        """Ask the client, and give its answer."""
        stdin = self.sockets["stdin"]
        content = {"prompt": prompt, "password": password}
        self.send(stdin, [self.identity, *self.frames("input_request", content, self.parent)])
        frames = self.receive("stdin")
        value: str = json.loads(frames[frames.index(DELIMITER) + 5])["value"]
        return value

    def answer(self, msg_type: str, content: object, channel: str = "shell", **more: Any) -> None:
        """Answer the request in hand."""
        frames = self.frames(msg_type, content, self.parent, **more)
        self.send(self.sockets[channel], [self.identity, *frames])

    # -- requests -------------------------------------------------------------------------------

    def status(self, state: str, parent: Json) -> None:
        """Publish a status."""
        self.publish("status", {"execution_state": state}, parent=parent)

    def receive(self, name: str) -> list[bytes]:
        """Receive in the main thread; signals are handled at once, whenever they come."""
        poller = zmq.Poller()
        poller.register(self.sockets[name], zmq.POLLIN)
        poller.register(self.wakeups, zmq.POLLIN)
        while not self.ending:
            ready = dict(poller.poll())
            if self.wakeups in ready:
                os.read(self.wakeups, 100)
            if self.sockets[name] in ready:
                return self.sockets[name].recv_multipart()
        raise Ending

    def serve_shell(self) -> None:
        """Answer requests until told to end."""
        while True:
            frames = self.receive("shell")
            start = frames.index(DELIMITER)
            self.identity = frames[0]
            self.parent = json.loads(frames[start + 2])
            self.request(json.loads(frames[start + 5]), tuple(frames[start + 6 :]))

    def request(self, content: Json, buffers: tuple[bytes, ...]) -> None:
        """Answer one request."""
        msg_type = self.parent["msg_type"]
        if msg_type == "kernel_info_request":
            self.kernel_info("shell", self.identity, self.parent)
            return
        self.status("busy", self.parent)
        if msg_type == "execute_request":
            self.execute(content)
        elif msg_type in {"comm_open", "comm_msg"}:
            self.publish("comm_msg", content, buffers=tuple(part[::-1] for part in buffers))
        elif msg_type.endswith("_request"):
            self.answer(msg_type.replace("_request", "_reply"), {"status": "ok", "echo": content})
        self.status("idle", self.parent)

    def execute(self, content: Json) -> None:
        """Run the code, and answer."""
        if content.get("store_history", True):
            self.count += 1
        code = content["code"]
        self.request_content = content
        self.publish("execute_input", {"code": code, "execution_count": self.count})
        reply: Json = {"status": "ok", "payload": [], "user_expressions": {}}
        try:
            self.executing = True
            exec(code, self.names)  # noqa: S102
            self.executing = False
        except (Exception, KeyboardInterrupt) as exc:  # noqa: BLE001
            self.executing = False
            error = {"ename": type(exc).__name__, "evalue": str(exc), "traceback": [repr(exc)]}
            self.publish("error", error)
            reply = {"status": "error", **error}
        self.answer("execute_reply", {**reply, "execution_count": self.count})

    def kernel_info(self, channel: str, identity: bytes, parent: Json) -> None:
        """Answer what we are asked at start."""
        if self.options.mute:
            return
        content = {**INFO, **self.options.info}
        if not self.options.quiet:
            self.status("busy", parent)
        frames = self.frames("kernel_info_reply", content, parent)
        self.sockets[channel].send_multipart([identity, *frames])
        if not self.options.quiet:
            self.status("idle", parent)

    def serve_control(self) -> None:
        """Answer on control, in a thread."""
        control = self.sockets["control"]
        while True:
            frames = control.recv_multipart()
            start = frames.index(DELIMITER)
            parent, content = json.loads(frames[start + 2]), json.loads(frames[start + 5])
            msg_type = parent["msg_type"]
            if msg_type == "kernel_info_request":
                self.kernel_info("control", frames[0], parent)
                continue
            if msg_type == "shutdown_request" and not self.options.polite:
                continue
            if msg_type == "interrupt_request":
                os.kill(os.getpid(), signal.SIGINT)
            reply = {"status": "ok", **content}
            answer = self.frames(msg_type.replace("_request", "_reply"), reply, parent)
            control.send_multipart([frames[0], *answer])
            if msg_type == "shutdown_request":
                control.close(1000)
                os.kill(os.getpid(), signal.SIGUSR2)
                return

    def serve_iopub(self) -> None:
        """Pass on what is published, and welcome subscribers (JEP 65), in a thread."""
        iopub = self.sockets["iopub"]
        poller = zmq.Poller()
        poller.register(iopub, zmq.POLLIN)
        poller.register(self.published, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if iopub in ready:
                topic = iopub.recv()
                if topic[:1] == b"\x01" and self.options.welcome:
                    iopub.send_multipart([topic[1:], *self.frames("iopub_welcome", {}, {})])
            if self.published in ready:
                frames = self.published.recv_multipart()
                if frames == [b"close"]:
                    iopub.close(1000)
                    self.published.close()
                    self.iopub_over.set()
                    return
                iopub.send_multipart(frames)

    def serve_until_end(self, name: str, serve: Callable[[], None]) -> None:
        """Be a thread that serves a socket, and closes it when all is over."""
        with suppress(zmq.ContextTerminated):
            serve()
        self.sockets[name].close(1000)

    def serve_heart(self) -> None:
        """Echo, in a thread."""
        heart = self.sockets["hb"]
        while True:
            beat = heart.recv_multipart()
            while self.deaf:
                time.sleep(0.01)
            heart.send_multipart(beat)

    def run(self) -> None:
        """Be the kernel."""
        signal.signal(signal.SIGUSR2, self.end)
        signal.signal(signal.SIGINT, self.interrupt)
        exec(self.options.before, self.names)  # noqa: S102
        if not self.options.bind:
            signal.pause()
        self.wakeups, wakeups = os.pipe()
        for end in (self.wakeups, wakeups):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wakeups, warn_on_full_buffer=False)
        self.bind()
        if "registration_port" in self.connection:
            self.register()
        exec(self.options.ready, self.names)  # noqa: S102
        threads = {"control": self.serve_control, "iopub": self.serve_iopub, "hb": self.serve_heart}
        for name, serve in threads.items():
            threading.Thread(target=self.serve_until_end, args=(name, serve), daemon=True).start()
        try:
            self.serve_shell()
        except Ending:
            self.finish()

    def interrupt(self, *_: object) -> None:
        """End what is executed, if anything is."""
        if self.executing:
            self.executing = False
            raise KeyboardInterrupt

    def end(self, *_: object) -> None:
        """End soon, between two messages: no socket may be closed amid one."""
        self.ending = True
        if self.executing and not getattr(self.parts, "sending", False):
            raise Ending

    def finish(self) -> None:
        """Exit in order, with everything sent that was published."""
        sys.stdout.flush()
        self.outlet().send_multipart([b"close"])
        self.outlet().close(1000)
        self.iopub_over.wait(1)
        for name in ("shell", "stdin"):
            self.sockets[name].close(1000)
        self.context.term()
        os._exit(0)


def main() -> None:
    """Read what we are told, and be the kernel."""
    options = Options(json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123
        connection = json.load(file)
    Puppet(connection, options).run()


if __name__ == "__main__":
    main()
