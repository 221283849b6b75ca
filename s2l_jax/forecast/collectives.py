"""What a compiled program sends between devices, read off its text; loops count as often as they run."""

import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np

_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = (.*)")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
_KINDS = "(?:all-gather|all-reduce|reduce-scatter|(?:ragged-)?all-to-all|collective-(?:permute|broadcast))"
_COLLECTIVE = re.compile(rf"(\(.*?\)|\S+) ({_KINDS})(-start)?\(")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
# TPU compilers make a reduce-scatter of an all-reduce within a fusion of this name.
_SCATTERS = "all-reduce-scatter"

# The instructions of a computation by name, the last of them as `ROOT`.
_Body = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of exchange among devices.

    Attributes:
      kind: as XLA calls it.
      size: bytes of the whole array that a device puts together or adds up.
      group: places, in the order of the mesh, of the devices that exchange it; one of several such groups.
      times: how often a run of the program does it.
    """

    kind: str
    size: float
    group: tuple[int, ...]
    times: float

    @property
    def sent(self) -> float:
        """Bytes that each device sends in all, in a ring."""
        n = len(self.group)
        share = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1.0, "collective-broadcast": 1.0}
        return self.times * self.size * share.get(self.kind, (n - 1) / n)


def collectives(program: str, num_devices: int, unknown_trips: float = 1) -> list[Collective]:
    """The collectives of a compiled program that send something.

    Args:
      program: its text.
      num_devices: of the mesh.
      unknown_trips: how often loops run whose length is not known from the program.
    """
    bodies = _computations(program)
    found: dict[str, Collective] = {}
    for number, (line, times, within) in enumerate(_reached(bodies, "ENTRY", 1.0, unknown_trips)):
        match = _COLLECTIVE.match(line)
        if match is None:
            continue
        group = _group(line, num_devices)
        kind = "reduce-scatter" if within.startswith(_SCATTERS) else match[2]
        size = _size(match[1], kind, line, len(group), is_start=match[3] is not None)
        # An exchange that a TPU does while it computes is written in several fusions, on one channel.
        channel = re.search(r"channel_id=(\d+)", line)
        key = channel[1] if channel else f"line {number}"
        if key not in found or found[key].times < times:
            found[key] = Collective(kind, size, group, times)
    return [each for each in found.values() if len(set(each.group)) > 1 and each.size]


def _computations(program: str) -> dict[str, _Body]:
    bodies: dict[str, _Body] = {}
    name = ""
    for line in program.splitlines():
        if start := _COMPUTATION.match(line):
            name = "ENTRY" if start[1] else start[2]
            bodies[name] = {}
        elif name and (instruction := _INSTRUCTION.match(line)):
            bodies[name]["ROOT" if instruction[1] else instruction[2]] = instruction[3]
    return bodies


def _reached(
    bodies: dict[str, _Body], name: str, times: float, unknown: float
) -> Iterator[tuple[str, float, str]]:
    """Every instruction that runs, how often, and the computation that it is in."""
    for line in bodies.get(name, {}).values():
        yield line, times, name
        inner = times
        if " while(" in line:
            inner *= _trips(bodies, line, unknown)
        called = _CALLED.findall(line)
        for branches in _BRANCHES.findall(line):
            called += [branch.strip().lstrip("%") for branch in branches.split(",")]
        for each in called:
            yield from _reached(bodies, each, inner, unknown)


def _trips(bodies: dict[str, _Body], line: str, unknown: float) -> float:
    """How often a loop runs: what its condition compares its counter with, by what its body adds to that."""
    if known := re.search(r'known_trip_count"?:\s*\{"n":"(\d+)"', line):
        return float(known[1])
    condition, body = (
        bodies.get(found[1], {}) if (found := re.search(rf"{part}=%?([\w.-]+)", line)) else {}
        for part in ("condition", "body")
    )
    compared = condition.get("ROOT", "")
    operands = [condition.get(name, "") for name in _operands(compared, "compare")]
    place = re.search(r" get-tuple-element\(.*index=(\d+)", operands[0]) if len(operands) == 2 else None
    if place is None or "direction=LT" not in compared or not (limit := _constant(operands[1])):
        return unknown
    following = _operands(body.get("ROOT", ""), "tuple")[int(place[1]) :][:1]
    added = [body.get(name, "") for next_ in following for name in _operands(body.get(next_, ""), "add")]
    step = next(filter(None, map(_constant, added)), 1)
    return float(math.ceil(limit / step))


def _operands(instruction: str, kind: str) -> list[str]:
    """The names of what an instruction takes; none of one of another kind."""
    _, found, rest = instruction.partition(f" {kind}(")
    return re.findall(r"%([\w.-]+)", rest.partition(")")[0]) if found else []


def _constant(instruction: str) -> int:
    """The value of a whole number; 0 for anything else."""
    found = re.match(r"[su]32\[\]\S* constant\((\d+)\)", instruction)
    return int(found[1]) if found else 0


def _size(result: str, kind: str, line: str, devices: int, *, is_start: bool) -> float:
    total = float(sum(_bytes(dtype, shape) for dtype, shape in _ARRAY.findall(result)))
    if is_start and kind == "all-gather":  # its result names its operands, too
        return total * devices / (devices + 1)
    if is_start and kind == "collective-permute":
        return total / 2
    return total * devices if kind == "reduce-scatter" and " reduce-scatter" in line else total


def _bytes(dtype: str, shape: str) -> float:
    bits = re.search(r"\d+", dtype)
    width = 1.0 if dtype == "pred" or bits is None else int(bits[0]) / 8
    return width * math.prod(map(int, filter(None, shape.split(","))))


def _group(line: str, num_devices: int) -> tuple[int, ...]:
    """The places of the devices of one group."""
    if pairs := re.search(r"source_target_pairs=\{(\{[\d,{}]+\})\}", line):
        return _ring({int(a): int(b) for a, b in re.findall(r"\{(\d+),(\d+)\}", pairs[1])})
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return tuple(map(int, listed[1].split(",")))
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line):
        groups, shape = (tuple(map(int, iota[n].split(","))) for n in (1, 2))
        places = np.arange(math.prod(shape)).reshape(shape)
        if iota[3]:
            places = places.transpose(tuple(map(int, iota[3].split(","))))
        return tuple(places.reshape(groups)[0].tolist())
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        over = re.findall(r"'(\w+)'", mesh[2])
        places = np.arange(math.prod(axes.values())).reshape(tuple(axes.values()))
        return tuple(places[tuple(slice(None) if name in over else 0 for name in axes)].ravel().tolist())
    return tuple(range(num_devices))


def _ring(receivers: dict[int, int]) -> tuple[int, ...]:
    """The devices along one chain of senders; some devices may send to themselves."""
    start = next((sender for sender, receiver in receivers.items() if sender != receiver), None)
    chain: list[int] = []
    while start is not None and start not in chain:
        chain.append(start)
        start = receivers.get(start)
    return tuple(chain)
