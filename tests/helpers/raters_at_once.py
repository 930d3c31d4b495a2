"""Raters who vote over HTTP at the same time, as their browsers would: for the load test and bench/raters.py."""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from resynced.studies import Study

PLAYED = {f"{side}_{what}_s": 1.0 for side in ("left", "right") for what in ("played", "heard", "length")}


def crowd_study(name: str, per_rater: int, raters: int) -> Study:
    """A study without videos that has room for so many raters."""
    counts = {"votes_per_pair": per_rater * raters, "per_rater": per_rater, "training": 1, "gold": 1, "traps": 1}
    systems, items = ("a", "b", "c", "d"), tuple(f"i{k}" for k in range(10))
    return Study(name, "A crowd", "preference", "made", "0" * 64, systems, items, training_items=("t0",), **counts)


@dataclass
class Crowd:
    """What a crowd saw: ballots that were acknowledged, seconds that each vote took, refusals that should not be."""

    acknowledged: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    cookies: list[str] = field(default_factory=list)
    finished: int = 0

    def run(self, address: str, study: str, raters: int, pause_s: float = 1.05, timeout_s: float = 60) -> None:
        """Let raters begin within a second and answer everything; those with a cookie of an earlier run go on."""
        known, self.cookies = [*self.cookies, *[""] * raters][:raters], []
        threads = [
            threading.Thread(target=self._rate, args=(address, study, known[k], k / raters, pause_s, timeout_s))
            for k in range(raters)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _rate(self, address: str, study: str, cookie: str, wait_s: float, pause_s: float, timeout_s: float) -> None:
        time.sleep(wait_s)
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=timeout_s)

        def ask(method: str, what: str, body: dict | None = None) -> tuple[int, dict]:
            nonlocal cookie
            headers = {"Content-Type": "application/json", "Cookie": cookie}
            connection.request(method, f"/rate/{study}/{what}", json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            content = json.loads(answer.read())
            connection.close()  # the server closes idle ones after five seconds; the next request opens another
            cookie = (answer.getheader("set-cookie") or cookie).split(";")[0]
            return answer.status, content

        try:
            if not cookie:
                status, said = ask("POST", "join", {"consent": True})
                if status != 200:
                    self.wrong.append(str(said))
                    return
            self.cookies.append(cookie)
            ballot = ask("GET", "next")[1].get("ballot")
            while ballot:
                time.sleep(pause_s)
                vote = {"preference": ballot["instruction"] or "left"}
                sent = {"token": ballot["token"], "answer": vote, "timings": PLAYED}
                began = time.monotonic()
                status, said = ask("POST", "answer", sent)
                if status != 200:
                    self.wrong.append(str(said))
                    return
                self.seconds.append(time.monotonic() - began)
                self.acknowledged.append(ballot["ballot"])
                if len(self.acknowledged) % 5 == 0:  # an impatient rater presses twice
                    status, again = ask("POST", "answer", sent)
                    if status == 200 or not again.get("answered"):
                        self.wrong.append(f"twice: {again}")
                ballot = said["ballot"]
            self.finished += 1
        except (OSError, http.client.HTTPException):
            return  # the server was ended
        finally:
            connection.close()
