"""An app in Python against the real agent, over a real WebSocket."""

import asyncio
import os
import unittest

import sessioncap
from sessioncap import Event

from .websocket import connect
from .world import DEADLINE, ECHO, World


class App:
    """The person's view, and the keychain."""

    def __init__(self, connection) -> None:
        self.kept: dict[str, bytes] = {}
        self.can_store = True
        self.text = ""
        self.states: list = []
        self.fates: dict[int, str] = {}
        self.refusals: list[str] = []
        self.sockets: list = []
        self.portal: str | None = None
        self.shown = 0
        self.changed = asyncio.Event()
        self.phone = sessioncap.Phone(connection, self.connect, self, self.show)

    def put(self, ticket: str, stored: bytes) -> None:
        if not self.can_store:
            raise OSError("locked")
        self.kept[ticket] = stored

    async def connect(self, url, pins):
        assert self.kept, "nothing is opened before the pairing is stored"
        self.sockets.append(await connect(self.portal or url, pins))
        return self.sockets[-1]

    def show(self, event) -> None:
        if isinstance(event, Event.STATE_CHANGED):
            self.states.append(event.state)
        elif isinstance(event, (Event.SHOWN, Event.SCREEN)):
            if isinstance(event, Event.SHOWN):
                self.shown += event.missing + len(event.bytes)
            self.text += event.bytes.decode(errors="replace")
        elif isinstance(event, Event.TYPED):
            self.fates[event.id] = event.fate
        elif isinstance(event, Event.REFUSED):
            self.refusals.append(event.sentence)
        self.changed.set()

    async def until(self, what: str, holds) -> None:
        async def wait() -> None:
            while not holds():
                self.changed.clear()
                await self.changed.wait()

        try:
            await asyncio.wait_for(wait(), DEADLINE)
        except asyncio.TimeoutError:
            raise AssertionError(f"{what}: {[state.code for state in self.states]} {self.text!r}") from None

    async def until_state(self, code: str):
        await self.until(code, lambda: self.states and self.states[-1].code == code)
        return self.states[-1]

    async def until_text(self, text: str) -> None:
        await self.until(text, lambda: text in self.text)

    async def fate_of(self, typed: int) -> str:
        await self.until("a fate", lambda: typed in self.fates)
        return self.fates[typed]


class Story(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.world = await asyncio.to_thread(World)

    async def asyncTearDown(self) -> None:
        await asyncio.to_thread(self.world.end)

    async def join(self, *terms: str, script: str = ECHO) -> App:
        self.session = await self.world.session(script)
        self.offered = await self.world.pair(self.session, *terms)
        preview = sessioncap.preview(self.offered["link"], sessioncap.new_pairings())
        self.assertEqual((preview.host(), preview.known()), ("127.0.0.1", "nothing"))
        self.assertEqual(preview.fingerprint().replace(" ", ""), self.world.key)
        app = App(preview.accept("python"))
        app.phone.start()
        return app

    async def test_a_phone_joins_follows_types_and_comes_back(self) -> None:
        app = await self.join()
        state = await app.until_state("live")
        self.assertEqual(state.session, self.session)
        await app.until_text("ready")
        self.assertEqual(await app.fate_of(app.phone.type_line("hello")), "taken")
        await app.until_text("got:hello")
        # The network goes, and comes again: nothing is lost and nothing shown twice.
        app.sockets[-1].break_off()
        await app.until("a second connection", lambda: len(app.sockets) == 2)
        await app.until_state("live")
        self.assertEqual(await app.fate_of(app.phone.type_line("again")), "taken")
        await app.until_text("got:again")
        self.assertEqual(app.text.count("got:hello"), 1)
        await app.phone.leave()
        # The app is started again with what its keychain has.
        pairings = sessioncap.new_pairings()
        (stored,) = app.kept.values()
        pairings.put(stored)
        (known,) = pairings.list()
        self.assertEqual((known.session, known.host), (self.session, "127.0.0.1"))
        again = App(sessioncap.reopen(stored))
        again.kept = app.kept
        again.phone.start()
        await again.until_text("got:again")
        await again.phone.leave()
        self.assertEqual(sessioncap.preview(self.offered["link"], pairings).known(), "link")

    async def test_an_app_that_is_started_again_goes_on_where_it_was(self) -> None:
        app = await self.join()
        await app.until_text("ready")
        self.assertEqual(await app.fate_of(app.phone.type_line("one")), "taken")
        await app.until_text("got:one")
        point = app.phone.resume_point
        self.assertEqual(len(point), 24)
        await app.phone.leave()
        (stored,) = app.kept.values()
        again = App(sessioncap.reopen(stored))
        again.kept = app.kept
        again.phone.resume_after(point)
        again.phone.start()
        await again.until_state("live")
        with self.assertRaises(sessioncap.Failed) as failed:
            again.phone.resume_after(point)
        self.assertEqual(failed.exception.failure.code, "started")
        self.assertEqual(await again.fate_of(again.phone.type_line("two")), "taken")
        await again.until_text("got:two")
        self.assertNotIn("got:one", again.text, "it is not shown again")
        await again.phone.leave()

    async def test_a_key_with_its_modifiers_reaches_the_session(self) -> None:
        app = await self.join()
        await app.until_text("ready")
        for key in ["h", "x", "backspace", "i", "enter"]:
            self.assertEqual(await app.fate_of(app.phone.type_key(key)), "taken")
        await app.until_text("got:hi")
        self.assertIn("pagedown", sessioncap.key_names())
        with self.assertRaises(sessioncap.Failed) as failed:
            app.phone.type_key("shift+a")
        self.assertEqual(failed.exception.failure.code, "unknown_key")
        await app.phone.leave()

    async def test_an_address_that_is_added_is_kept_and_leads_nobody_astray(self) -> None:
        app = await self.join()
        await app.until_text("ready")
        (before,) = app.kept.values()
        self.assertTrue(app.phone.add_address("ws://127.0.0.1:9"))
        (after,) = app.kept.values()
        self.assertGreater(len(after), len(before))
        await app.phone.leave()
        again = App(sessioncap.reopen(after))
        again.kept = app.kept
        again.phone.start()
        await again.until_text("ready")
        await again.phone.leave()

    async def test_a_captive_portal_proves_nothing(self) -> None:
        app = await self.join()
        await app.until_text("ready")
        kept = dict(app.kept)
        answers = {
            "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/login\r\nContent-Length: 0\r\n\r\n",
            "a page": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 14\r\n\r\n<html>login</>",
            "a TLS alert": bytes([21, 3, 3, 0, 2, 2, 40]),
            "nothing": b"",
        }
        for what, answer in answers.items():
            asked = asyncio.Event()

            async def serve(reader, writer, answer=answer, asked=asked) -> None:
                await reader.read(4096)
                writer.write(answer)
                writer.close()
                asked.set()

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            app.portal = f"ws://127.0.0.1:{port}/noise/ws"
            seen = len(app.states)
            app.sockets[-1].break_off()
            await asyncio.wait_for(asked.wait(), DEADLINE)
            await app.until(what, lambda: any(s.failure and s.failure.code == "unreachable" for s in app.states[seen:]))
            self.assertTrue(all(s.code != "stopped" for s in app.states[seen:]), what)
            app.portal = None
            app.phone.network_changed()
            await app.until_state("live")
            server.close()
        self.assertEqual(app.kept, kept)
        await app.phone.leave()

    async def test_a_paste_runs_nothing_in_a_shell(self) -> None:
        app = await self.join(script="PS1='ready$ ' INPUTRC=/dev/null exec bash --norc --noprofile -i")
        await app.until_text("\x1b[?2004h")
        run = self.world.directory / "run"
        # It ends the brackets, and presses Enter.
        hostile = f"echo pa\x9b201~sted\x1b[201~\ntouch {run}\n"
        self.assertEqual(await app.fate_of(app.phone.paste(hostile, True)), "taken")
        await app.until_text("touch")
        self.assertEqual(await app.fate_of(app.phone.type_key("ctrl+u")), "taken")
        self.assertEqual(await app.fate_of(app.phone.type_line("echo 'the ''end'")), "taken")
        await app.until_text("the end")
        self.assertFalse(run.exists())
        # The same as keys does it.
        app.phone.type_bytes(f"\x1b[200~{hostile}".replace("\n", "\r").encode())
        app.phone.type_line("echo 'the ''last'")
        await app.until_text("the last")
        self.assertTrue(run.exists())
        await app.phone.leave()

    async def test_five_megabytes_come_whole(self) -> None:
        size = 5_000_000
        app = await self.join(script=f"stty -echo -onlcr; echo ready; read -r line; head -c {size} /dev/zero | tr '\\0' x; echo; echo end; read -r line")
        await app.until_text("ready")
        before = app.shown
        app.phone.type_line("go")
        await app.until("five megabytes", lambda: app.shown - before >= size + len("\nend\n"))
        self.assertEqual(app.shown - before, size + len("\nend\n"))
        self.assertTrue(app.text.endswith("x\nend\n"))
        await app.phone.leave()

    async def test_a_phone_that_may_only_watch_is_refused(self) -> None:
        app = await self.join("--ops", "stream_output")
        await app.until_text("ready")
        self.assertEqual(await app.fate_of(app.phone.type_line("forbidden")), "refused")
        self.assertEqual(app.states[-1].code, "live")
        await app.phone.leave()

    async def test_a_renewal_narrows_at_once_and_is_stored_before_it_is_used(self) -> None:
        app = await self.join()
        await app.until_text("ready")
        before = dict(app.kept)
        await self.world.run(
            "session", "renew", self.session, self.offered["ticket"], "--ops", "stream_output"
        )
        self.assertEqual(await app.fate_of(app.phone.type_line("forbidden")), "refused")
        app.can_store = False
        # More, with the next attach.
        await self.world.run(
            "session", "renew", self.session, self.offered["ticket"], "--ops", "companion,resize", "--valid-for", "24h"
        )
        app.sockets[-1].break_off()
        await app.until("a keychain that is locked", lambda: any(s.failure and s.failure.code == "not_stored" for s in app.states))
        self.assertEqual(app.kept, before)
        app.can_store = True
        app.phone.start()
        await app.until("the renewed terms", lambda: app.states[-1].code == "live" and "resize" in app.states[-1].ops)
        self.assertNotEqual(app.kept, before)
        self.assertGreater(app.states[-1].seconds_left, 80_000)
        self.assertEqual(await app.fate_of(app.phone.type_line("allowed")), "taken")
        await app.phone.leave()

    async def test_a_revoked_phone_stops_and_is_told_why(self) -> None:
        app = await self.join()
        await app.until_text("ready")
        await self.world.run("session", "revoke", self.offered["ticket"])
        state = await app.until_state("stopped")
        self.assertEqual((state.failure.code, state.failure.advice), ("revoked", "forget"))
        self.assertTrue(app.kept, "only the person forgets")
        app.phone.wipe()
        app.phone.wipe()
        with self.assertRaises(sessioncap.Failed) as wiped:
            app.phone.start()
        self.assertEqual(wiped.exception.failure.code, "wiped")

    async def test_a_phone_outlasts_an_agent_that_is_started_again(self) -> None:
        app = await self.join()
        await app.until_text("ready")
        await asyncio.to_thread(self.world.stop)
        await app.until("an agent that is away", lambda: any(s.failure and s.failure.code == "unreachable" for s in app.states))
        await asyncio.to_thread(self.world.start_again)
        # Its sessions have ended with it, and it says so itself.
        state = await app.until_state("stopped")
        self.assertEqual(state.failure.code, "session_gone")

    async def test_a_phone_that_has_to_be_confirmed_shows_the_desktops_digits(self) -> None:
        app = await self.join("--confirm")
        state = await app.until_state("waiting")
        self.assertRegex(state.digits, r"^\d{3} \d{3}$")
        await app.phone.leave()


class Links(unittest.TestCase):
    def test_what_is_no_link_has_a_code_a_sentence_and_an_advice(self) -> None:
        with self.assertRaises(sessioncap.Failed) as failed:
            sessioncap.preview("https://example.com", sessioncap.new_pairings())
        failure = failed.exception.failure
        self.assertEqual((failure.code, failure.advice), ("link_foreign", "ask_owner"))
        self.assertTrue(failure.sentence)

    def test_bytes_that_are_no_pairing_are_refused(self) -> None:
        for stored, code in [(b"", "stored_foreign"), (b"SCPP\x02", "stored_newer"), (b"SCPP\x01", "stored_damaged")]:
            with self.assertRaises(sessioncap.Failed) as failed:
                sessioncap.reopen(stored)
            self.assertEqual(failed.exception.failure.code, code)

    def test_a_library_of_another_signature_is_not_loaded(self) -> None:
        import re
        import shutil
        import subprocess
        import sys
        import tempfile
        from pathlib import Path

        package = Path(sessioncap.__file__).parent
        with tempfile.TemporaryDirectory() as directory:
            copy = Path(directory) / "sessioncap"
            shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
            generated = copy / "generated.py"
            text = generated.read_text()
            (number,) = re.findall(r"_checksum_method_connection_type_key\(\) != (\d+):", text)
            load = [sys.executable, "-B", "-c", "import sessioncap"]
            self.assertEqual(subprocess.run(load, cwd=directory, capture_output=True).returncode, 0)
            changed = text.replace(f"_type_key() != {number}:", f"_type_key() != {(int(number) + 1) % 65536}:")
            self.assertNotEqual(changed, text)
            generated.write_text(changed)
            loaded = subprocess.run(load, cwd=directory, capture_output=True, text=True)
            self.assertNotEqual(loaded.returncode, 0)
            self.assertIn("checksum mismatch", loaded.stderr)

    def test_short_processes_end_without_an_error(self) -> None:
        import subprocess
        import sys

        program = "import sessioncap; p = sessioncap.new_pairings(); p.list()"
        # Two hundred before a release.
        for _ in range(int(os.environ.get("SESSIONCAP_PROCESSES", "20"))):
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
