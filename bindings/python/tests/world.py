"""The example agent and desktop, as processes."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

# `cargo build --examples` leaves the programs there.
PROGRAMS = Path(os.environ.get("SESSIONCAP_PROGRAMS", Path(__file__).parents[3] / "target/debug/examples"))
ECHO = "stty -echo; echo ready; while read -r line; do echo \"got:$line\"; done"
DEADLINE = 120


class World:
    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sessioncap-"))
        device = self._run("keygen").strip()
        self.agent = self._agent("127.0.0.1:0", "--enroll", device)
        self._run("keygen", "--agent", self.url, "--agent-key", self.key)

    def _agent(self, listen: str, *more: str) -> subprocess.Popen:
        command = [PROGRAMS / "agent", "--state", self.directory / "agent", "--listen", listen, *more]
        errors = open(self.directory / "agent.log", "ab")
        agent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL)
        errors.close()
        line = json.loads(agent.stdout.readline())
        assert line["event"] == "listening", line
        self.url, self.key = line["url"], line["agent_key"]
        return agent

    def _command(self, *arguments: str) -> list:
        return [PROGRAMS / "dd_client", "--profile", self.directory / "desktop", *arguments]

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(self._command(*arguments), capture_output=True, text=True, timeout=DEADLINE)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def run(self, *arguments: str) -> str:
        return (await asyncio.to_thread(self._run, *arguments)).strip()

    async def session(self, script: str = ECHO) -> str:
        return await self.run("session", "create", script)

    async def pair(self, session: str, *more: str) -> dict:
        """Shows a code; the desktop waits for the phone in the background."""
        self.desktop = subprocess.Popen(
            self._command("session", "pair-mobile", session, "--json", *more),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        return json.loads(await asyncio.to_thread(self.desktop.stdout.readline))

    def stop(self) -> None:
        self.agent.send_signal(signal.SIGTERM)
        self.agent.wait(DEADLINE)
        self.agent.stdout.close()

    def start_again(self) -> None:
        self.agent = self._agent(urlsplit(self.url).netloc)

    def end(self) -> None:
        if self.agent.poll() is None:
            self.stop()
        if desktop := getattr(self, "desktop", None):
            desktop.kill()
            desktop.wait()
            desktop.stdout.close()
        shutil.rmtree(self.directory, ignore_errors=True)
