"""Answers of a server, as JSON values."""

from __future__ import annotations

from typing import Any

__all__ = ["CONNECTION", "SESSION", "STATUS"]

SESSION: dict[str, Any] = {
    "session_id": "one",
    "argv": ["python3"],
    "username": "u",
    "display_name": "Python",
    "language": "python",
    "interrupt_mode": "signal",
    "connected": False,
    "started": "2026-01-02T03:04:05Z",
    "session_mode": "console",
    "working_directory": "/",
    "input_prompt": ">>>",
    "continuation_prompt": "...",
    "execution_queue": {"length": 0, "pending": []},
    "status": "idle",
    "kernel_info": {"banner": "hello"},
    "idle_seconds": 0,
    "busy_seconds": 0,
    "history": [],
}
STATUS: dict[str, Any] = {
    "sessions": 1,
    "active": 1,
    "busy": False,
    "idle_seconds": 3,
    "busy_seconds": 0,
    "uptime_seconds": 4,
    "version": "1.2.3",
    "process_id": 42,
    "started": "2026-01-02T03:04:05Z",
    "server_id": "8d3c4f5e-3d2b-4c1a-9f00-000000000000",
}
CONNECTION: dict[str, Any] = {
    "control_port": 1,
    "shell_port": 2,
    "stdin_port": 3,
    "hb_port": 4,
    "iopub_port": 5,
    "signature_scheme": "hmac-sha256",
    "key": "k",
    "transport": "tcp",
    "ip": "127.0.0.1",
}
