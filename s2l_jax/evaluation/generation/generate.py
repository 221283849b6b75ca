"""Generation with a key-value cache: prompts of different length together, finished rows refilled."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from s2l_jax.errors import InputError
from s2l_jax.evaluation.generation.decoding import DecodeState, DecodingPrograms, decoding_programs
from s2l_jax.evaluation.generation.sampling import GREEDY, Sampling
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.decoder import Decoder
from s2l_jax.models.parameters import model_params
from s2l_jax.parallel.sharding import replicated, row_sharding

_REFILL_SHARE = 4  # a quarter of the batch is refilled at a time
_HEADROOM = 32  # slots that a cache has free at least when it is made
_STEPS_PER_LOOK = 16  # decoding steps between looks for stop strings

Stops = Callable[[list[int]], bool]


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end_tokens: Sequence[int],
    mesh: Mesh,
    batch_size: int = 64,
    dtype: Any = jnp.float32,
    attention: str = "auto",
    sampling: Sampling = GREEDY,
    stops: Stops | None = None,
    indices: Sequence[int] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> list[list[int]]:
    """Answers to prompts, token by token, up to and without an end token.

    A row that has finished gets the next prompt while the others go on, so one long answer does
    not hold up a batch; what a prompt's answer is does not depend on its neighbours. Sampled
    answers depend on the seed and the prompt's index.

    Args:
      model: on `mesh`.
      prompts: token ids, none empty.
      max_new_tokens: longest answer; an answer also ends where the model's context does.
      end_tokens: any of them ends an answer: end-of-sequence, end of turn.
      mesh: the device mesh; rows are spread over its row axes.
      batch_size: prompts answered at a time.
      dtype: of matrix products and of the cache.
      attention: "auto", or "xla" for plain XLA on every device.
      sampling: greedy, unless told otherwise.
      stops: says of an answer so far whether to end it, for stop strings; asked every few tokens,
        so an answer may run on past the place.
      indices: of the prompts, which decide their random numbers; None: their places in `prompts`.
      progress: called with the number of prompts answered so far.

    Raises:
      InputError: an empty prompt, one as long as the model's context, or one with a token id that is
        not in the model's vocabulary; no room for answers.
    """
    for name, value in (("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        if value < 1:
            raise InputError(f"{name}={value}: must be 1 or above.")
    _check(prompts, model.config)
    programs = decoding_programs(
        model.config, max_new_tokens, tuple(end_tokens), sampling, dtype, mesh, attention
    )
    params = programs.prepare(model_params(model))
    answers: list[list[int]] = [[] for _ in prompts]
    if indices is None:
        indices = range(len(prompts))
    batch = _Batch(programs, params, prompts, batch_size, stops, indices)
    for done, (place, answer) in enumerate(batch.run(), start=1):
        answers[place] = answer
        progress(done)
    return answers


def _check(prompts: Sequence[Sequence[int]], config: DecoderConfig) -> None:
    context = config.max_positions
    for index, prompt in enumerate(prompts):
        if strange := [token for token in prompt if not 0 <= token < config.vocab_size]:
            raise InputError(
                f"prompt {index} has the token {strange[0]}; the model's vocabulary is {config.vocab_size}: "
                "the tokeniser is not the model's."
            )
        if not 0 < len(prompt) < context:
            raise InputError(
                f"prompt {index} has {len(prompt)} tokens; the model's context is {context}, and an "
                "answer needs at least one of them: shorten the prompt."
            )


class _Batch:
    """The rows on the devices and which prompt each of them answers."""

    def __init__(
        self,
        programs: DecodingPrograms,
        params: Any,
        prompts: Sequence[Sequence[int]],
        batch_size: int,
        stops: Stops | None,
        indices: Sequence[int],
    ):
        self._programs, self._params, self._prompts = programs, params, prompts
        self._stops, self._indices, self._groups = stops, indices, programs.groups
        self._per_group = -(-min(batch_size, max(1, len(prompts))) // self._groups)
        self._at_once = -(-self._per_group // _REFILL_SHARE)
        self._waiting = sorted(range(len(prompts)), key=lambda n: (len(prompts[n]), -n))
        batch = self._groups * self._per_group
        self._owner = np.full(batch, -1)  # prompt that each row answers; -1: none
        self._lengths = np.zeros(batch, np.int64)  # tokens each row has in the cache
        self._end = self._slots = 0
        self._state: DecodeState | None = None

    def run(self) -> Iterator[tuple[int, list[int]]]:
        """The places in `prompts` and answers, as they get ready."""
        while self._waiting or (self._owner >= 0).any():
            while self._waiting and (self._owner < 0).any():
                self._take_in()
            yield from self._decode()

    def _take_in(self) -> None:
        """Give rows that are free the next prompts, as many at a time as are refilled at once."""
        shape = (self._groups, self._at_once)
        rows = np.full(shape, self._per_group, np.int32)
        owners = np.full(shape, -1, np.int32)
        owner, length = (x.reshape(self._groups, -1) for x in (self._owner, self._lengths))  # views
        free = [np.flatnonzero(group < 0) for group in owner]
        for slot in range(self._at_once):  # the groups take turns, so that they stay equally full
            for group in range(self._groups):
                if slot < len(free[group]) and self._waiting:
                    row, place = free[group][slot], self._waiting.pop()
                    rows[group, slot], owners[group, slot] = row, place
                    owner[group, row], length[group, row] = place, len(self._prompts[place])
        places = owners.ravel().tolist()
        chosen = [self._prompts[n] if n >= 0 else [] for n in places]
        width = bucket(max(map(len, chosen)))
        tokens = np.zeros((owners.size, width), np.int32)
        for at, prompt in enumerate(chosen):
            tokens[at, width - len(prompt) :] = prompt
        put = functools.partial(_put, sharding=row_sharding(self._programs.mesh))
        lengths = np.array([len(prompt) for prompt in chosen], np.int32)
        indices = np.array([self._indices[n] if n >= 0 else -1 for n in places], np.int32)
        fresh = self._programs.prefill(self._params, put(tokens), put(lengths), put(indices))
        self._make_room(int(self._lengths.max()))
        assert self._state is not None
        self._state = self._programs.insert(self._state, fresh, put(rows))

    def _make_room(self, live: int) -> None:
        """See that `live` slots lie before the next one, and some after it."""
        if self._state is not None and live <= self._end < self._slots:
            return
        slots = bucket(live + min(_HEADROOM, self._programs.max_new_tokens))
        if self._state is None:
            self._state = self._programs.empty(self._owner.size, slots)
        shift = _put(np.int32(live - self._end), replicated(self._programs.mesh))
        self._state = self._programs.move(self._state, slots, shift)
        self._end, self._slots = live, slots

    def _decode(self) -> Iterator[tuple[int, list[int]]]:
        self._make_room(int(self._lengths.max()))
        assert self._state is not None
        whole = replicated(self._programs.mesh)
        idle = int((self._owner < 0).sum())
        batch = self._owner.size
        stop_at = min(batch, idle + self._groups * self._at_once) if self._waiting else batch
        steps = _STEPS_PER_LOOK if self._stops else self._programs.max_new_tokens
        self._state = self._programs.decode(
            self._params, self._state, _put(np.int32(stop_at), whole), _put(np.int32(steps), whole)
        )
        going, counts, positions, answers = map(np.array, self._programs.gather(self._state))
        self._end = int(self._state.cache.end)
        self._lengths = np.where(going, positions, 0)
        for row in np.flatnonzero(self._owner >= 0):
            answer = answers[row, : counts[row]].tolist()
            if going[row] and self._stops is not None and self._stops(answer):
                going[row] = False
            if not going[row]:
                yield int(self._owner[row]), answer
                self._owner[row] = -1
        if self._stops is not None:
            self._state = self._programs.keep(self._state, _put(going, row_sharding(self._programs.mesh)))


def bucket(slots: int) -> int:
    """The next of 32, 48, 64, 96, 128, ...: few shapes to compile, at most a third of one unused."""
    size = 32
    while size < slots:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def _put(array: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    array = np.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
