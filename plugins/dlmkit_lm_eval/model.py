"""The harness's model `dlmkit`: likelihoods by bound or exact, and texts by the model's sampler."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from pydantic import ValidationError

from dlmkit import devices
from dlmkit.errors import Notice, UsageError
from dlmkit.evaluation.perplexity import scored, windows
from dlmkit.evaluation.score import Scoring, key, scorer
from dlmkit.model import Model, Run, open_model
from dlmkit.plugin import Size
from dlmkit.registry.complaints import complaints, validated
from dlmkit.sampling.requests import Request
from dlmkit.training.parallel import world

T = TypeVar("T")


class HarnessOptions(Scoring):
    """What ``--model_args`` says of scoring and sampling."""

    stride: Size | None = None
    steps: Size | None = None
    max_gen_toks: Size = 128


@register_model("dlmkit")
class DlmkitLM(LM):
    """A model of dlmkit.

    ``model`` is what ``dlmkit sample`` takes. ``draws``, ``block``, ``rows`` and ``seed`` are those
    of :class:`~dlmkit.evaluation.score.Scoring`; ``stride`` is that of rolling likelihoods
    (default: half the model's length); ``steps``, ``sampler``, ``grid`` and ``exit`` say how texts
    are drawn, and ``max_gen_toks`` how many tokens where a task does not. ``batch_size`` texts are
    drawn side by side.

    Every answer depends on the model, the request and the seed: not on the batch size, the other
    requests or the number of processes, which under ``torchrun`` share out all requests. Raises
    UsageError for options that are out of range or have no use for this model.
    """

    def __init__(
        self,
        model: str,
        draws: int = 128,
        block: int | None = None,
        rows: int = 32,
        seed: int = 0,
        stride: int | None = None,
        steps: int | None = None,
        sampler: str | None = None,
        grid: str | None = None,
        exit: str | None = None,  # noqa: A002
        max_gen_toks: int = 128,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        self._open = ExitStack()
        self._world = self._open.enter_context(world(device=devices.choose(device or "auto")))
        opened: Model = open_model(str(model), device=self._world.device)
        self.model = opened.with_parts(sampler, grid, exit)
        given = {"draws": draws, "block": block, "rows": rows, "seed": seed}
        given |= {"stride": stride, "steps": steps, "max_gen_toks": max_gen_toks}
        try:
            asked = validated(HarnessOptions, given)
        except ValidationError as error:
            raise UsageError(f"--model_args {complaints(HarnessOptions, error)}") from error
        self.scorer = scorer(self.model.parts, asked)
        self.length = self.model.config.length
        self.stride = asked.stride or max(1, self.length // 2)
        if self.stride > self.length:
            raise UsageError(f"--model_args stride={stride}: expected 1 to {self.length}")
        if batch_size is not None and not str(batch_size).isdecimal():
            raise UsageError(
                f"--batch_size {batch_size}: expected a number; texts are drawn so many side by "
                "side, and likelihoods in passes of `rows` draws, whatever the batch size"
            )
        size = None if batch_size is None else int(batch_size)
        self.sampling = Run(seed=asked.seed, steps=asked.steps, batch_size=size)
        self.most = asked.max_gen_toks
        self._noted: set[str] = set()

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Of each (context, continuation): its log-likelihood, or the bound, in nats; and whether
        one token at a time, from left to right, the likeliest is always the continuation's."""

        def answer(args: Sequence[str]) -> tuple[float, bool]:
            context, ids = self._pair(*args)
            whole, first = self._cut([*context, *ids], len(ids))
            return -self.scorer.keyed(whole, first), self.scorer.greedy(whole, first)

        return self._shared(requests, answer)

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Of each text: the sum over windows of the model's length, each token once."""

        def answer(args: Sequence[str]) -> float:
            ids = self._encode(args[0])
            cut = windows(len(ids), self.length, self.stride)
            return -sum(scored(self.scorer, ids, window) for window in cut)

        return self._shared(requests, answer)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Of each (context, options): the text that the model's own sampler writes, up to the
        first of ``until``, of at most ``max_gen_toks`` tokens."""
        asked = [self._prompt(*request.args) for request in requests]
        unique = {request.row: request for request, _, _ in asked}
        drawn = self.model.run(list(unique.values()), self.sampling, world=self._world)
        ids = {sample.row: sample.ids for sample in drawn}
        return [self._text(ids[r.row], count, until) for r, count, until in asked]

    def _shared(self, requests: list[Instance], answer: Callable[[Sequence[str]], T]) -> list[T]:
        """The answers in order; the processes share out the requests, and all have all answers."""
        mine = [answer(r.args) for r in requests[self._world.rank :: self._world.size]]
        by_process = self._world.share(mine)
        size = self._world.size
        return [by_process[i % size][i // size] for i in range(len(requests))]

    def _encode(self, text: str) -> list[int]:
        return self.model.assembly.tokenizer.encode(text)

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of both; spaces between them belong to the continuation, as the harness
        has it of causal models."""
        bare = context.rstrip()
        whole, known = self._encode(context + continuation), self._encode(bare)
        ids = whole[len(known) :]
        if not ids:
            raise UsageError(f"the continuation {continuation!r} has no token of its own")
        return whole[: len(known)], ids

    def _cut(self, ids: list[int], scored: int) -> tuple[list[int], int]:
        """The last tokens that fit, and the first of them to be scored."""
        if scored > self.length:
            raise UsageError(
                f"a continuation has {scored} tokens; this model's texts have at most {self.length}"
            )
        if len(ids) > self.length:
            self._note(f"contexts are cut on the left to texts of {self.length} tokens")
        kept = ids[-self.length :]
        return kept, len(kept) - scored

    def _prompt(self, context: str, options: dict[str, Any]) -> tuple[Request, int, list[str]]:
        if options.get("do_sample") or options.get("temperature"):
            self._note(
                "do_sample and temperature of a task do not reach the model: its sampler draws "
                "texts as its recipe and --model_args sampler=... say"
            )
        until = options.get("until") or []
        wanted = min(int(options.get("max_gen_toks", self.most)), self.length - 1)
        ids = self._encode(context.rstrip())
        if len(ids) + wanted > self.length:
            self._note(f"contexts are cut on the left to texts of {self.length} tokens")
        kept = ids[-(self.length - wanted) :]
        row = key(kept, [wanted])
        request = Request.prompt(row, kept, len(kept) + wanted)
        return request, len(kept), [until] if isinstance(until, str) else list(until)

    def _text(self, ids: Sequence[int], given: int, until: Sequence[str]) -> str:
        tokenizer = self.model.assembly.tokenizer
        end = tokenizer.separator_id
        new = list(ids[given:])
        new = new[: new.index(end)] if end in new else new
        before, whole = tokenizer.decode(ids[:given]), tokenizer.decode([*ids[:given], *new])
        text = whole[len(before) :] if whole.startswith(before) else tokenizer.decode(new)
        for stop in filter(None, until):
            text = text.partition(stop)[0]
        return text

    def _note(self, words: str) -> None:
        if words not in self._noted and self._world.first:
            self._noted.add(words)
            warnings.warn(words, Notice, stacklevel=2)
