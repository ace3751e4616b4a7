"""The endpoint client against a real server, and against one that does everything wrong."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from adloom.copywriting.endpoint import MINUTE, Account, EndpointModel, Pace, Purse
from adloom.errors import AdloomError
from adloom.settings import CHECKOUT
from adloom.shop import Endpoint, Sampling

KEY = "sk-nobody-may-see-this-0123456789"
FEW_TOKENS = Sampling(max_new_tokens=16)


# --- a server that does as it is told -------------------------------------------------------------------------------


@dataclass
class Reply:
    """One HTTP answer: after a while, whole or cut short."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0
    is_cut: bool = False


def good(
    text: str = "copy", reason: str | None = "stop", tokens: tuple[int, int] | None = (10, 5), **more: Any
) -> Reply:
    message = {"role": "assistant", "content": text, **more}
    answer: dict[str, Any] = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
    }
    if tokens:
        answer["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return Reply(json.dumps(answer).encode())


def bad(status: int, message: str = "no", headers: dict[str, str] | None = None, **more: Any) -> Reply:
    return Reply(json.dumps({"error": {"message": message, **more}}).encode(), status, headers or {})


@dataclass
class Asked:
    """A request as the server saw it."""

    body: dict[str, Any]
    headers: dict[str, str]
    at: float

    @property
    def prompt(self) -> str:
        return self.body["messages"][-1]["content"]


class Faulty:
    """An HTTP server in this process that answers what ``answer`` returns and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Reply] = lambda asked: good(f"copy for {asked.prompt}")
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer._serve(self, Asked(body, {k.lower(): v for k, v in self.headers.items()}, time.monotonic()))

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _serve(self, handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        with self._lock:
            self.asked.append(asked)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            reply = self.answer(asked)
            time.sleep(reply.after)
            headers = {"content-type": "application/json", "content-length": str(len(reply.body)), **reply.headers}
            handler.send_response(reply.status)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(reply.body[:-20] if reply.is_cut else reply.body)
        except BrokenPipeError:
            pass  # the client had waited long enough
        finally:
            with self._lock:
                self._at_once -= 1

    def in_turn(self, *replies: Reply) -> None:
        """Answer with these, one a request; the last one from then on."""
        left = list(replies)
        self.answer = lambda _: left.pop(0) if len(left) > 1 else left[0]

    def for_prompt(self, prompt: str, reply: Reply) -> None:
        """Answer this prompt with that, all others well."""
        self.answer = lambda asked: reply if asked.prompt == prompt else good(f"copy for {asked.prompt}")


@pytest.fixture
def server() -> Iterator[Faulty]:
    made = Faulty()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def ask(server: Faulty, monkeypatch: pytest.MonkeyPatch) -> Callable[..., EndpointModel]:
    """Make a client of the server; settings of the shop's file as keywords."""
    monkeypatch.setenv("SHOP_KEY", KEY)

    def make(pace: Pace | None = None, account: Path | None = None, **options: Any) -> EndpointModel:
        values = {
            "url": server.url,
            "model": "tiny",
            "api_key_variable": "SHOP_KEY",
            "timeout_seconds": 10,
            "max_retries": 0,
            "requests_per_minute": 1000,
        } | options
        return EndpointModel(Endpoint(**values), pace, account)

    return make


# --- a real server --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformers_server(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URL and model of ``transformers serve``: the tiny model, which samples and soon meets an end token."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    shutil.copytree(tiny_gpt2, folder)
    settings = {"do_sample": True, "pad_token_id": 0, "eos_token_id": list(range(3, 60))}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    program = CHECKOUT / ".venv" / "bin" / "transformers"
    command = [program, "serve", folder, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = folder.parent / "log"
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environment) as process:
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                    break
                except (urllib.error.URLError, OSError):
                    assert process.poll() is None, log.read_text()
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1", str(folder)
        finally:
            process.terminate()


def test_real_server_writes_by_seed(transformers_server: tuple[str, str]) -> None:
    url, name = transformers_server
    # One at a time: this server has one random state, and a seed arriving meanwhile would change what is being drawn.
    model = EndpointModel(Endpoint(url=url, model=name, price_per_million_output=1.0, parallel_requests=1))
    chat = [{"role": "system", "content": "You write ads."}, {"role": "user", "content": "白色连衣裙"}]
    prompts = ["a red coat", "a red coat", "a red coat", chat]
    # Structured answers are more than this server offers: it says so, and the prompts are asked without.
    first = model.complete(prompts, Sampling(max_new_tokens=100), [1, 1, 2, 3], schema={"type": "object"})
    again = model.complete(prompts, Sampling(max_new_tokens=100), [1, 1, 2, 3])
    assert first == again
    assert [one.error for one in first] == [None] * 4
    assert all(one.text and one.input_tokens > 5 and one.output_tokens for one in first)
    assert first[0] == first[1]
    assert first[0].text != first[2].text, "the seed reached the server"
    assert model.spent == pytest.approx(2 * sum(one.output_tokens for one in first) / 1e6)


def test_real_server_is_asked_in_parallel_and_cuts_where_it_should(transformers_server: tuple[str, str]) -> None:
    url, name = transformers_server
    model = EndpointModel(Endpoint(url=url, model=name, parallel_requests=8))
    found = model.complete(["a red coat"] * 16, Sampling(max_new_tokens=1), range(16))
    assert {one.error for one in found} == {"truncated at 1 tokens (sampling.max_new_tokens)"}


# --- faults ---------------------------------------------------------------------------------------------------------


def test_request_holds_what_the_shop_asked_for(server: Faulty, ask: Callable[..., EndpointModel]) -> None:
    model = ask(extra={"chat_template_kwargs": {"enable_thinking": False}})
    schema = {"type": "object", "properties": {"headline": {"type": "string"}}}
    model.complete(["a coat"], Sampling(temperature=0.3, top_p=0.9, max_new_tokens=77), [42], schema)
    (asked,) = server.asked
    assert asked.body == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "a coat"}],
        "temperature": 0.3,
        "top_p": 0.9,
        "max_tokens": 77,
        "seed": 42,
        "response_format": {"type": "json_schema", "json_schema": {"name": "copy", "schema": schema}},
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert asked.headers["authorization"] == f"Bearer {KEY}"


def test_answers_come_in_order_and_no_more_requests_at_once_than_allowed(
    server: Faulty, ask: Callable[..., EndpointModel]
) -> None:
    def slower_first(asked: Asked) -> Reply:
        reply = good(f"copy for {asked.prompt}")
        reply.after = 0.1 if int(asked.prompt) % 3 == 0 else 0.01
        return reply

    server.answer = slower_first
    found = ask(parallel_requests=3).complete([str(n) for n in range(12)], FEW_TOKENS, range(12))
    assert [one.text for one in found] == [f"copy for {n}" for n in range(12)]
    assert 1 < server.most_at_once <= 3


def test_waits_as_long_as_retry_after_says(server: Faulty, ask: Callable[..., EndpointModel]) -> None:
    server.in_turn(bad(429, headers={"retry-after": "1"}), good("copy"))
    (found,) = ask(max_retries=1).complete(["a"], FEW_TOKENS, [1])
    assert found.text == "copy"
    assert found.error is None
    first, second = server.asked
    assert second.at - first.at >= 1


def test_server_error_and_lost_connection_are_asked_again(server: Faulty, ask: Callable[..., EndpointModel]) -> None:
    lost = good("lost")
    lost.is_cut = True
    server.in_turn(bad(500), lost, good("copy"))
    (found,) = ask(max_retries=2).complete(["a"], FEW_TOKENS, [1])
    assert (found.text, found.error, len(server.asked)) == ("copy", None, 3)


def _with_usage_only() -> Reply:
    return Reply(json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 0}}).encode())


ONE_FAULT: dict[str, tuple[Reply, str]] = {
    "server error": (bad(500, "boom"), r"HTTP 500: boom"),
    "too many requests": (bad(429, "slow down"), r"HTTP 429: slow down"),
    "refused prompt": (bad(400, "context length exceeded"), r"refused: context length exceeded"),
    "no answer": (Reply(b"", after=1.5), r"no answer within 0\.5 s, after 1 try"),
    "cut connection": (Reply(good().body, is_cut=True), r"no connection \(RemoteProtocolError\), after 1 try"),
    "half a JSON": (Reply(good().body[:60]), r"malformed answer"),
    "a proxy's page": (Reply(b"<html>login</html>", headers={"content-type": "text/html"}), r"malformed answer: no ch"),
    "a list": (Reply(b"[1, 2]"), r"malformed answer: no choices"),
    "no choices": (_with_usage_only(), r"malformed answer: no choices"),
    "not in UTF-8": (Reply(b'{"choices": "\xff\xfe"}'), r"malformed answer"),
    "nothing": (good(""), r"empty answer"),
    "null": (good(None), r"empty answer"),  # type: ignore[arg-type]
    "cut copy": (good("half a", "length"), r"truncated at 16 tokens"),
    "filtered": (good("half a", "content_filter"), r"content filter"),
    "declined": (good(None, refusal="I cannot"), r"the model declined: I cannot"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("reply", "said"), ONE_FAULT.values(), ids=ONE_FAULT)
def test_fault_of_one_prompt_harms_no_other(
    reply: Reply, said: str, server: Faulty, ask: Callable[..., EndpointModel]
) -> None:
    server.for_prompt("b", reply)
    found = ask(timeout_seconds=0.5).complete(["a", "b", "c"], FEW_TOKENS, [1, 2, 3])
    assert [one.text for one in found[::2]] == ["copy for a", "copy for c"]
    assert [one.error for one in found[::2]] == [None, None]
    assert re.search(said, found[1].error or "")
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("reply", "said", "next_step"),
    [
        (bad(401, f"Incorrect API key provided: {KEY}"), "refuses the key (HTTP 401)", "set SHOP_KEY"),
        (bad(403, "not for you"), "refuses the key (HTTP 403)", "set SHOP_KEY"),
        (bad(404, "no model tiny"), "is not found (HTTP 404): no model tiny", ".model"),
        (bad(429, "quota", code="insufficient_quota"), "has no quota left (HTTP 429)", "top up"),
    ],
    ids=["key", "permission", "model", "quota"],
)
def test_refusal_that_meets_every_prompt_stops_at_once(
    reply: Reply, said: str, next_step: str, server: Faulty, ask: Callable[..., EndpointModel]
) -> None:
    server.in_turn(reply)
    with pytest.raises(AdloomError) as caught:
        ask(parallel_requests=2).complete([str(n) for n in range(50)], FEW_TOKENS, range(50))
    assert said in caught.value.message
    assert "tiny" in caught.value.message
    assert next_step in caught.value.next_step
    assert len(server.asked) <= 4


@pytest.mark.parametrize("status", [400, 401])
def test_refusal_is_not_asked_again(status: int, server: Faulty, ask: Callable[..., EndpointModel]) -> None:
    server.in_turn(bad(status))
    try:
        ask(max_retries=3).complete(["a"], FEW_TOKENS, [1])
    except AdloomError:
        assert status == 401
    assert len(server.asked) == 1


def test_fields_a_model_does_not_take_are_left_out(
    server: Faulty, ask: Callable[..., EndpointModel], caplog: pytest.LogCaptureFixture
) -> None:
    def reasoning_model(asked: Asked) -> Reply:
        for name in ("max_tokens", "temperature"):
            if name in asked.body:
                return bad(400, f"Unsupported parameter: '{name}'", param=name, code="unsupported_parameter")
        return good(f"copy for {asked.prompt}")

    server.answer = reasoning_model
    model = ask(parallel_requests=1)
    found = model.complete(["a", "b"], FEW_TOKENS, [1, 2])
    assert [one.text for one in found] == ["copy for a", "copy for b"]
    assert len(server.asked) == 4, "it learns once"
    assert server.asked[-1].body["max_completion_tokens"] == 16
    assert server.asked[-1].body["seed"] == 2
    assert sum("does not take" in message for message in caplog.messages) == 2


# --- key ------------------------------------------------------------------------------------------------------------


def test_key_is_in_no_log_line_error_or_repr(
    server: Faulty, ask: Callable[..., EndpointModel], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
        caplog.set_level(logging.DEBUG, logger=name)
    model = ask(max_retries=1, timeout_seconds=0.5)
    echo = f"your request said: Bearer {KEY}"
    server.in_turn(bad(500, echo), good("copy"), Reply(echo.encode(), after=1), bad(400, echo), bad(401, echo))
    found = model.complete(["a"], FEW_TOKENS, [1])
    found += ask(timeout_seconds=0.5).complete(["b"], FEW_TOKENS, [1])
    found += model.complete(["c"], FEW_TOKENS, [1])
    with pytest.raises(AdloomError) as caught:
        model.complete(["d"], FEW_TOKENS, [1])
    told = "".join(traceback.format_exception(caught.value))
    logged = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    shown = (told, repr(caught.value), repr(found), repr(model), str(vars(model)), logged)
    assert not [text for text in shown if KEY in text]
    assert "***" in told


def test_key_that_is_not_set_is_asked_for_by_name(
    ask: Callable[..., EndpointModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHOP_KEY")
    with pytest.raises(AdloomError, match="environment variable SHOP_KEY") as caught:
        ask()
    assert "export SHOP_KEY" in caught.value.next_step


def test_server_without_a_key_is_sent_no_key_of_another(
    server: Faulty, ask: Callable[..., EndpointModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, KEY)
    ask(api_key_variable=None).complete(["a"], FEW_TOKENS, [1])
    assert KEY not in str(server.asked[0].headers)


# --- pace and cost --------------------------------------------------------------------------------------------------


def test_pace_lets_no_more_begin_in_any_minute() -> None:
    now = [0.0]
    begun = []

    def sleep(seconds: float) -> None:
        now[0] += seconds

    pace = Pace(5, clock=lambda: now[0], sleep=sleep)
    for number in range(30):
        pace.wait()
        begun.append(now[0])
        now[0] += 7.0 if number % 10 == 9 else 0.5
    assert begun[4] < 3, "a few requests need not wait"
    assert all(later - earlier >= 60 for earlier, later in zip(begun, begun[5:], strict=False))


def test_retries_keep_the_pace_too(server: Faulty, ask: Callable[..., EndpointModel]) -> None:
    waited = []
    server.in_turn(bad(500), good())
    pace = Pace(1, clock=lambda: 0.0, sleep=waited.append)
    ask(pace, max_retries=1).complete(["a"], FEW_TOKENS, [1])
    assert waited == [60.0]


def test_cost_never_exceeds_the_limit(server: Faulty, ask: Callable[..., EndpointModel]) -> None:
    # Worst case of a prompt: 1 byte and 16 more tokens in, 16 out, so 17 + 2 × 16 = 49 millionths; it does cost 42.
    server.answer = lambda asked: good(f"copy for {asked.prompt}", tokens=(10, 16))
    limit = 42e-6 * 5 + 49e-6 + 1e-9
    model = ask(price_per_million_input=1, price_per_million_output=2, max_cost=limit, parallel_requests=4)
    found = model.complete(list("abcdefghij"), FEW_TOKENS, range(10))
    answered = [one for one in found if one.error is None]
    assert len(answered) == len(server.asked) == 6
    assert model.spent == pytest.approx(6 * 42e-6)
    assert model.spent <= limit
    left = {one.error for one in found if one.error is not None}
    assert left == {"not asked: it could cost more than is left of max_cost 0.000259001"}


def test_unanswered_requests_count_at_their_worst(server: Faulty, ask: Callable[..., EndpointModel]) -> None:
    server.in_turn(Reply(b"", after=1), bad(500), good(tokens=None))
    model = ask(price_per_million_input=1, price_per_million_output=2, timeout_seconds=0.3, max_retries=1)
    model.complete(["a"], FEW_TOKENS, [1])
    assert model.spent == pytest.approx(49e-6), "the server may have charged for the first, not for its own error"
    model.complete(["b"], FEW_TOKENS, [1])
    assert model.spent == pytest.approx(2 * 49e-6), "no count came with the answer"


SHARD = """
import sys, time
from pathlib import Path
from adloom.copywriting.endpoint import Account, Purse

path, limit, promised, cost, requests = Path(sys.argv[1]), *map(float, sys.argv[2:])
account = Account(path)
purse = Purse(limit, account)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(requests)):
    print("turn", account.turn(3, 1000.0), flush=True)
    if purse.promise(promised):
        print("asked", flush=True)
        if cost < 0:
            time.sleep(600)
        purse.settle(promised, cost)
"""


def shard(path: Path, limit: float, promised: float, cost: float, requests: int) -> subprocess.Popen[str]:
    """A process that asks so often, as a shard of the day does; a negative cost: it never gets its first answer."""
    numbers = map(str, (limit, promised, cost, requests))
    command = [sys.executable, "-c", SHARD, str(path), *numbers]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def test_shards_that_run_at_once_keep_one_cost_and_one_pace(tmp_path: Path) -> None:
    path = tmp_path / "day=2024-03-01" / "endpoint.sqlite"
    shards = [shard(path, limit=100.0, promised=9.0, cost=2.0, requests=40) for _ in range(2)]
    for one in shards:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    lines = [line for one in shards for line in one.communicate(timeout=120)[0].splitlines()]
    asked = lines.count("asked")
    assert asked * 2.0 <= 100.0, "what was spent together"
    assert 2.0 * asked > 100.0 - 9.0 - 9.0, "but for what two requests under way held back, all of it"
    turns = sorted(float(line.split()[1]) for line in lines if line.startswith("turn"))
    assert len(turns) == 80
    assert all(later - earlier >= MINUTE for earlier, later in zip(turns, turns[3:], strict=False))


def test_a_killed_shard_holds_up_no_other_and_its_request_stays_paid_for(tmp_path: Path) -> None:
    path = tmp_path / "endpoint.sqlite"
    hanging = shard(path, limit=10.0, promised=6.0, cost=-1.0, requests=1)
    assert hanging.stdin is not None
    assert hanging.stdout is not None
    hanging.stdin.write("go\n")
    hanging.stdin.flush()
    assert [hanging.stdout.readline()[:4], hanging.stdout.readline()] == ["turn", "asked\n"]
    hanging.send_signal(signal.SIGKILL)
    hanging.communicate()
    purse = Purse(10.0, Account(path))
    assert not purse.promise(5.0), "the server may have charged for the other's"
    assert purse.promise(4.0)
    purse.settle(4.0, 1.0)
    assert Account(path).booked == pytest.approx(7.0)


def test_models_of_one_day_share_its_cost_and_say_what_is_missing(
    server: Faulty, ask: Callable[..., EndpointModel], tmp_path: Path
) -> None:
    prices = {"price_per_million_input": 1, "price_per_million_output": 2, "max_cost": 42e-6 * 3 + 49e-6}
    server.answer = lambda asked: good(f"copy for {asked.prompt}", tokens=(10, 16))
    found = [
        one
        for _ in range(2)
        for one in ask(account=tmp_path / "a", **prices).complete(list("abc"), FEW_TOKENS, [1, 2, 3])
    ]
    assert len(server.asked) == sum(one.error is None for one in found) == 4
    assert "left of max_cost" in (found[-1].error or "")


def test_an_account_that_is_no_account_is_named(tmp_path: Path) -> None:
    path = tmp_path / "endpoint.sqlite"
    path.write_text("this is no database, whatever its name says" * 20)
    with pytest.raises(AdloomError, match=r"endpoint\.sqlite: file is not a database"):
        Account(path)
