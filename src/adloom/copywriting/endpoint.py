"""A copy model behind an OpenAI-compatible server: a hosted model, vLLM, SGLang.

The client is the `openai` package: it retries 408, 409, 429, 5xx, timeouts and lost connections with backoff and waits
as long as ``Retry-After`` says. What it does not do is here: requests per minute, retries included, and a cost that is
never exceeded, both over all shards of a day that run at once; one prompt's fault kept away from the others; a key that
no log line, error or ``repr`` shows.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import SecretStr

from adloom import shop
from adloom.errors import AdloomError

if TYPE_CHECKING:
    from openai import APIStatusError

log = logging.getLogger(__name__)

Prompt = str | Sequence[Mapping[str, str]]
"""One user's text, or chat messages with ``role`` and ``content``."""

MINUTE = 60.0
UNITS = 10**9
"""Money is booked in whole billionths, so that change given back leaves no rounding error."""
# A server's own template adds tokens around each message; byte-level vocabularies need at most a token a byte.
TOKENS_AROUND_A_MESSAGE = 16
# What some servers do not take; they name the field when they refuse it. All know max_tokens, and those that do not
# take it want the newer spelling.
NOT_TAKEN_BY_ALL = ("temperature", "top_p", "seed", "max_tokens", "response_format")


@dataclass(frozen=True)
class Completion:
    """The answer to one prompt; ``error`` says why there is none, or why it must not be used."""

    text: str
    input_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None


class Pace:
    """Lets at most ``per_minute`` requests begin in any 60 seconds; the others wait their turn.

    With an ``account`` that holds for every process that has the same one.
    """

    def __init__(
        self,
        per_minute: int,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        account: Account | None = None,
    ) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._sleep = sleep
        self._account = account or Account()

    def wait(self) -> None:
        """Return when the next request may begin."""
        seconds = self._account.turn(self._per_minute, self._clock())
        if seconds > 0:
            self._sleep(seconds)


class Purse:
    """What has been spent and what is promised to requests under way; never more than ``limit`` together.

    A promise is booked as if it were spent, and the answer gives change: of a process that was killed the promises stay
    spent, because the server may have worked, and charged, for them.
    """

    def __init__(self, limit: float | None, account: Account | None = None) -> None:
        self.spent = 0.0
        """by this object"""
        self._limit = limit
        self._account = account or Account()
        self._under_way = 0
        self._changed = threading.Condition()

    def promise(self, amount: float) -> bool:
        """Set ``amount`` aside; False when it can no longer be had. Waits for own requests to give change.

        For those of other processes it does not wait: one may have been killed.
        """
        with self._changed:
            while not self._account.book(amount, self._limit):
                if self._under_way == 0:
                    return False
                self._changed.wait()
            self._under_way += 1
            return True

    def settle(self, promised: float, cost: float) -> None:
        """Give a promise back and book what the request did cost."""
        with self._changed:
            self._account.book(cost - promised, None)
            self._under_way -= 1
            self.spent += cost
            self._changed.notify_all()


class Account:
    """Money and requests of one day in an SQLite file, shared by all processes that open it; without a file, by none.

    SQLite locks, and undoes what a killed process had begun. Rate-limit packages (limits, pyrate-limiter) count what
    begins, but none gives change back. The folder has to be on a file system whose locks work.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._named():
            self._file = sqlite3.connect(
                path or ":memory:", timeout=MINUTE, isolation_level=None, check_same_thread=False
            )
            # What a power cut may lose is not worth a disk's pause for every request.
            self._file.execute("pragma synchronous = off")
        with self._transaction():
            self._file.execute("create table if not exists money (booked integer not null)")
            self._file.execute("insert into money select 0 where not exists (select 1 from money)")
            self._file.execute("create table if not exists starts (at real not null)")

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise AdloomError(
                f"{self._path}: {error}",
                "make room or mend the folder; if the file is broken, remove it: what was spent is then forgotten",
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, self._named():
            self._file.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._file.execute("rollback")
                raise
            self._file.execute("commit")

    @property
    def booked(self) -> float:
        """Spent and promised, by everybody."""
        with self._transaction():
            return int(self._file.execute("select booked from money").fetchone()[0]) / UNITS

    def book(self, amount: float, limit: float | None) -> bool:
        """Add ``amount`` to what is booked; False, and nothing is added, where that were more than ``limit``."""
        units = round(amount * UNITS)
        with self._transaction():
            (booked,) = self._file.execute("select booked from money").fetchone()
            if limit is not None and booked + units > limit * UNITS:
                return False
            self._file.execute("update money set booked = ?", (booked + units,))
            return True

    def turn(self, per_minute: int, now: float) -> float:
        """Take the next turn: the seconds until it comes."""
        with self._transaction():
            self._file.execute("delete from starts where at <= ?", (now - MINUTE,))
            # The one that has to be a minute old when this one begins.
            nth = "select at from starts order by at desc limit 1 offset ?"
            last = self._file.execute(nth, (per_minute - 1,)).fetchone()
            begins = now if last is None else max(now, last[0] + MINUTE)
            self._file.execute("insert into starts values (?)", (begins,))
            return begins - now


class _CostLimit(Exception):
    """Another attempt could cost more than is left. The client lets it pass: it is no fault of the connection."""


class _Attempts(threading.local):
    """The promise for the HTTP request that this thread has under way."""

    worst = 0.0
    promise: float | None = None


class EndpointModel:
    """Asks an endpoint for many prompts at once; one prompt's fault never harms another's answer.

    Pace and cost are kept in the file ``account`` by all who name it: the shards of a day; without, by this object
    alone. ``AdloomError`` when the key's variable is not set.
    """

    def __init__(self, endpoint: shop.Endpoint, pace: Pace | None = None, account: Path | None = None) -> None:
        import openai

        self._endpoint = endpoint
        self._key = _key(endpoint)
        shared = Account(account)
        self._pace = pace or Pace(endpoint.requests_per_minute, account=shared)
        self._purse = Purse(endpoint.max_cost, shared)
        self._attempts = _Attempts()
        self._refused_fields: set[str] = set()
        # Every attempt passes the hooks, so that the client's own retries keep pace and cost too.
        hooks: dict[str, list[Callable[..., Any]]] = {
            "request": [self._begin_attempt],
            "response": [self._end_attempt],
        }
        nobody: dict[str, Any] = {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
        self._client = openai.OpenAI(
            base_url=endpoint.url,
            # A server without a key must not be sent the OPENAI_API_KEY that happens to be in the environment.
            api_key=self._key.get_secret_value() or "none",
            default_headers=nobody,
            timeout=endpoint.timeout_seconds,
            max_retries=endpoint.max_retries,
            http_client=openai.DefaultHttpxClient(event_hooks=hooks, timeout=endpoint.timeout_seconds),
        )

    def __repr__(self) -> str:
        return f"EndpointModel({self._endpoint.model} at {self._endpoint.url})"

    @property
    def spent(self) -> float:
        """Cost of this object's answers so far, in the currency of the shop's max_cost.

        A request that got no answer counts at its worst case: the server may have worked, and charged, for it.
        """
        return self._purse.spent

    def complete(
        self,
        prompts: Sequence[Prompt],
        sampling: shop.Sampling,
        seeds: Sequence[int],
        schema: Mapping[str, Any] | None = None,
    ) -> list[Completion]:
        """One completion per prompt, in order; ``schema``: JSON schema that the answer must follow.

        A prompt that fails after its retries has an ``error``, and so has every prompt not asked because it could
        exceed max_cost. `AdloomError` when no prompt can succeed: a refused key, an unknown model, no quota left.
        """
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts need as many seeds, not {len(seeds)}")
        stop = threading.Event()

        def ask(prompt: Prompt, seed: int) -> Completion:
            if stop.is_set():
                return Completion("", error="not asked: the batch was stopped")
            try:
                return self._ask(_body(self._endpoint, prompt, sampling, seed, schema))
            except AdloomError:
                stop.set()
                raise

        with ThreadPoolExecutor(self._endpoint.parallel_requests, thread_name_prefix="endpoint") as pool:
            try:
                return list(pool.map(ask, prompts, seeds))
            finally:
                stop.set()  # an interrupted task asks, and pays, for no more

    # --- one prompt ------------------------------------------------------------------------------------------------

    def _ask(self, body: dict[str, Any]) -> Completion:
        """Ask until there is an answer, or a reason why there is none."""
        import openai

        self._attempts.worst = self._worst_cost(body)
        self._attempts.promise = None
        try:
            return self._read(self._request(body), body)
        except _CostLimit:
            limit = self._endpoint.max_cost
            return Completion("", error=f"not asked: it could cost more than is left of max_cost {limit:g}")
        except (openai.APIError, json.JSONDecodeError, UnicodeDecodeError) as error:
            return Completion("", error=self._clean(self._fault(error)))
        finally:
            self._settle_unanswered()

    def _request(self, body: dict[str, Any]) -> Any:
        """The server's answer, asked again without a field that it names as not taken."""
        import openai

        while True:
            sent = self._accepted(body)
            try:
                return self._client.chat.completions.create(**sent)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if not self._learn(error, sent):
                    raise

    def _fault(self, error: Exception) -> str:
        """Why one prompt has no answer; `AdloomError` where no other prompt could have one."""
        import openai

        if isinstance(error, openai.APITimeoutError):
            return f"no answer within {self._endpoint.timeout_seconds:g} s, after {self._tries}"
        if isinstance(error, openai.APIConnectionError):
            cause = type(error.__cause__).__name__ if error.__cause__ else "closed"
            return f"no connection ({cause}), after {self._tries}"
        if isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError):
            return f"refused: {_reason(error)}"
        if isinstance(error, openai.APIStatusError):
            self._stop_if_hopeless(error)
            return f"HTTP {error.status_code}: {_reason(error)}"
        return f"malformed answer: {error}"

    @property
    def _tries(self) -> str:
        tries = self._endpoint.max_retries + 1
        return "1 try" if tries == 1 else f"{tries} tries"

    def _read(self, answer: Any, body: dict[str, Any]) -> Completion:
        """What the server sent, believed in nothing: proxies answer 200 with a page, servers leave fields out."""
        usage = _usage(answer)
        if usage is not None:  # else the promise is booked in full
            self._settle(self._cost(*usage))
        tokens_in, tokens_out = usage or (0, 0)
        choices = getattr(answer, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        text = getattr(message, "content", None)
        reason = getattr(choice, "finish_reason", None)
        error = None
        if message is None:
            error = "malformed answer: no choices[0].message"
        elif refusal := getattr(message, "refusal", None):
            error = self._clean(f"the model declined: {refusal}")
        elif reason == "length":
            error = f"truncated at {body['max_tokens']} tokens (sampling.max_new_tokens)"
        elif reason == "content_filter":
            error = "cut by the server's content filter"
        elif not isinstance(text, str) or not text.strip():
            error = "empty answer"
        return Completion(text if isinstance(text, str) else "", tokens_in, tokens_out, error)

    # --- fields a server does not take -------------------------------------------------------------------------------

    def _accepted(self, body: dict[str, Any]) -> dict[str, Any]:
        """The request without what this server has refused."""
        sent = {name: value for name, value in body.items() if name not in self._refused_fields}
        if "max_tokens" in self._refused_fields:
            sent["max_completion_tokens"] = body["max_tokens"]
        return sent

    def _learn(self, error: APIStatusError, sent: Mapping[str, Any]) -> bool:
        """Whether the refusal names a field that was sent and need not be, from now on."""
        field = getattr(error, "param", None)
        reason = _reason(error)
        if field is None and "support" in reason:  # in words only: Unsupported fields in the request: {'seed'}
            field = next((one for one in NOT_TAKEN_BY_ALL if f"'{one}'" in reason), None)
        if field not in NOT_TAKEN_BY_ALL or field not in sent:
            return False
        if field not in self._refused_fields:
            self._refused_fields.add(field)
            instead = "max_completion_tokens goes instead" if field == "max_tokens" else "it is left out from now on"
            log.warning("%s does not take %s: %s", self._endpoint.model, field, instead)
        return True

    # --- refusals ----------------------------------------------------------------------------------------------------

    def _stop_if_hopeless(self, error: APIStatusError) -> None:
        """`AdloomError` for a refusal that every other prompt would meet too."""
        variable = self._endpoint.api_key_variable
        if error.status_code in (401, 403):
            next_step = (
                f"set {variable} to a key that may use {self._endpoint.model}"
                if variable
                else ("name the key's environment variable in the shop's file: copywriting.endpoint.api_key_variable")
            )
            self._fail("refuses the key" if variable else "wants a key", error, next_step)
        if error.status_code == 404:
            self._fail("is not found", error, "check copywriting.endpoint.url (it ends in /v1) and .model")
        if error.status_code == 402 or error.code == "insufficient_quota":
            self._fail("has no quota left", error, "top up the account, or set another copywriting.model")

    def _fail(self, what: str, error: APIStatusError, next_step: str) -> NoReturn:
        # Without its chain: the client's own error holds the request with its headers.
        message = f"endpoint {self._endpoint.url}, model {self._endpoint.model}: {what} (HTTP {error.status_code}): "
        raise AdloomError(self._clean(message + _reason(error)), next_step) from None

    def _clean(self, text: str) -> str:
        """The text without the key, should a server have put it there, and on one line."""
        key = self._key.get_secret_value()
        text = text.replace(key, "***") if key else text
        return " ".join(text.split())[:500]

    # --- pace and cost -----------------------------------------------------------------------------------------------

    def _cost(self, tokens_in: int, tokens_out: int) -> float:
        prices = self._endpoint
        return (tokens_in * prices.price_per_million_input + tokens_out * prices.price_per_million_output) / 1e6

    def _worst_cost(self, body: dict[str, Any]) -> float:
        """Cost if every byte of the prompt were a token and the answer as long as allowed."""
        size = sum(len(message["content"].encode()) + TOKENS_AROUND_A_MESSAGE for message in body["messages"])
        if "response_format" in body:  # some servers put the schema into the prompt
            size += len(json.dumps(body["response_format"]).encode())
        return self._cost(size, body["max_tokens"])

    def _begin_attempt(self, _: object) -> None:
        self._settle_unanswered()
        if not self._purse.promise(self._attempts.worst):
            raise _CostLimit
        self._attempts.promise = self._attempts.worst
        self._pace.wait()

    def _end_attempt(self, response: Any) -> None:
        if response.status_code >= 400:
            self._settle(0.0)

    def _settle(self, cost: float) -> None:
        if self._attempts.promise is not None:
            self._purse.settle(self._attempts.promise, cost)
            self._attempts.promise = None

    def _settle_unanswered(self) -> None:
        if self._attempts.promise is not None:
            self._settle(self._attempts.promise)


def _key(endpoint: shop.Endpoint) -> SecretStr:
    """The key from the environment; empty where the shop names no variable."""
    variable = endpoint.api_key_variable
    if variable is None:
        return SecretStr("")
    value = os.environ.get(variable, "").strip()
    if not value:
        raise AdloomError(
            f"endpoint {endpoint.url}: its key is not in the environment variable {variable}",
            f"export {variable}, where tasks run too",
        )
    return SecretStr(value)


def _body(
    endpoint: shop.Endpoint, prompt: Prompt, sampling: shop.Sampling, seed: int, schema: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The request, in the fields of ``chat.completions.create``."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(one) for one in prompt]
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": messages,
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": seed,
    }
    if schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "copy", "schema": dict(schema)}}
    if endpoint.extra:
        body["extra_body"] = endpoint.extra
    return body


def _reason(error: APIStatusError) -> str:
    """What the server said, without the client's wrapping."""
    body = error.body
    said = (body.get("message") or body.get("detail")) if isinstance(body, dict) else body
    return str(said or error.message)


def _usage(answer: Any) -> tuple[int, int] | None:
    """Tokens in and out as the server counted them, or None."""
    usage = getattr(answer, "usage", None)
    tokens_in, tokens_out = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    if isinstance(tokens_in, int) and isinstance(tokens_out, int) and min(tokens_in, tokens_out) >= 0:
        return tokens_in, tokens_out
    return None
