"""What a command will do: each part of the workdir, whether it is there or will be made, and why."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from s2l_jax.config import resolved_run
from s2l_jax.config.fingerprint import Settings, deciding, deciding_run
from s2l_jax.config.inputs import PROXY_PARTS, Inputs, of_seed
from s2l_jax.config.runs import find_method, method_of
from s2l_jax.errors import InputError
from s2l_jax.evaluation.tasks.eval_task import find_tasks
from s2l_jax.features.inputs import inputs_of, part_of, settings_of
from s2l_jax.features.response_tokens import counting_models
from s2l_jax.models.checkpoint_series import find_checkpoints
from s2l_jax.records import conflicts, other_settings, stored_results
from s2l_jax.report.runs import UNTUNED
from s2l_jax.training.models import tokenizer_place
from s2l_jax.trajectories.cadence import Cadence

STAGES = ("pool", "proxy", "trajectories", "selection", "target", "evaluation", "analysis", "report")
THERE, GOES_ON, MADE, REFUSED, NOT_ASKED = "there", "goes on", "will be made", "refused", "not asked for"


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a workdir.

    Attributes:
      name: of its folder, such as "target/s2l".
      stage: that makes it.
      why: it is needed.
      settings: those of the config that decide it.
      state: THERE, GOES_ON (begun and not finished), MADE, REFUSED (it is there with other settings), or
        NOT_ASKED (its stage is not).
      differences: of a refused part, a line for each setting.
    """

    name: str
    stage: str
    why: str
    settings: Settings
    state: str = MADE
    differences: tuple[str, ...] = ()

    @property
    def is_left(self) -> bool:
        """Whether it is to be made, or made to its end."""
        return self.state in (MADE, GOES_ON)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The parts of a run, in order, and the stages that were asked for."""

    config: ConfigDict
    workdir: epath.Path
    stages: tuple[str, ...]
    parts: tuple[Part, ...]

    def has(self, stage: str) -> bool:
        """Whether a stage was asked for and has parts."""
        return stage in self.stages and any(part.stage == stage for part in self.parts)

    def is_left(self, name: str) -> bool:
        """Whether a part was asked for and is to be made, or made to its end."""
        return any(part.name == name and part.stage in self.stages and part.is_left for part in self.parts)

    def leaves(self, stage: str) -> bool:
        """Whether a stage has parts and was not asked for: they are used as they are."""
        return stage not in self.stages and any(part.stage == stage for part in self.parts)

    @property
    def inputs(self) -> tuple[Inputs, ...]:
        """Whose trajectories there are or will be, the config's own first if they are among them."""
        return tuple(proxy_users(self.config)) or (Inputs.of(self.config),)

    @property
    def trained(self) -> tuple[Inputs, ...]:
        """Those of them whose proxy is trained in the workdir."""
        return tuple(each for each in self.inputs if _trains(each.config(self.config)))

    @property
    def swept(self) -> tuple[Inputs, ...]:
        """Those whose proxy was trained elsewhere and is swept."""
        return tuple(each for each in self.inputs if sweeps_saved(each.config(self.config)))

    @property
    def to_train(self) -> tuple[Inputs, ...]:
        """Those of `trained`, if proxies are to be trained by what is asked for."""
        return self.trained if self.has("proxy") else ()

    @property
    def to_sweep(self) -> tuple[Inputs, ...]:
        """Those of `swept`, if they are to be swept by what is asked for."""
        return self.swept if self.has("trajectories") else ()

    @property
    def models(self) -> tuple[str, ...]:
        """The models ("proxy", "target", others as `Inputs.model`) whose tokenisers are needed."""
        models = [each.model for each in self.to_train]
        models += ["target"] if self.has("target") or self.has("analysis") else []
        models += [each.model for each in self.to_sweep]
        if not models and not self.config.trajectories.path and tokenizer_place(self.config, "proxy"):
            models.append("proxy")
        for name in self.config.selection.runs if "selection" in self.stages else ():
            entry = resolved_run(self.config, name)
            models += counting_models(self.config) if entry["budget_tokens"] else ()
            for feature in method_of(entry).features.values():
                inputs = inputs_of(feature, self.config, entry)
                models += [inputs.model if m == "proxy" else m for m in feature.models(self.config)]
        return tuple(dict.fromkeys(models))

    def check(self) -> None:
        """Refuse parts that were made with other settings, whichever stages are asked for.

        Raises:
          InputError: there are some; shows the differences of the first.
        """
        for part in self.parts:
            if part.state == REFUSED:
                raise InputError(other_settings(self.workdir / part.name, part.name, part.differences))

    def __str__(self) -> str:
        """A line for each part."""
        width = max((len(part.name) for part in self.parts), default=0)
        lines = [f"workdir {self.workdir}"]
        for part in self.parts:
            lines.append(f"  {part.name:{width}}  {part.state:13}  {part.why}".rstrip())
            lines += [f"      {difference}" for difference in part.differences]
        return "\n".join(lines)


def make_plan(config: ConfigDict, workdir: epath.Path, stages: Sequence[str] = STAGES) -> Plan:
    """The plan of a run, from its config and what its workdir holds; nothing is read but records.

    What decides a part beside the config (the content of files, the pool's tokens, other parts) is compared
    when the part's turn comes.

    Raises:
      InputError: see `find_stages`; or a record that is damaged, or gone from files that there are.
    """
    asked = find_stages(stages)
    parts = []
    for part in _parts(config):
        folder, recorded = workdir / part.name, part.stage != "report"
        if recorded and (differences := conflicts(folder, part.settings)):
            part = dataclasses.replace(part, state=REFUSED, differences=tuple(differences))
        elif recorded and stored_results(folder) is not None:
            part = dataclasses.replace(part, state=THERE)
        elif part.stage not in asked:
            part = dataclasses.replace(part, state=NOT_ASKED)
        elif recorded and folder.exists():
            part = dataclasses.replace(part, state=GOES_ON)
        parts.append(part)
    return Plan(config, workdir, tuple(asked), tuple(parts))


def find_stages(names: Sequence[str]) -> list[str]:
    """Full names of stages, in order, from names or unambiguous beginnings.

    Raises:
      InputError: a name that fits no stage or several.
    """
    found = set()
    for name in names:
        fitting = [stage for stage in STAGES if name and stage.startswith(name)]
        if len(fitting) != 1:
            raise InputError(
                f"--stages: {name!r} names {'no stage' if not fitting else ' and '.join(fitting)}; "
                f"stages are {', '.join(STAGES)}."
            )
        found.add(fitting[0])
    return [stage for stage in STAGES if stage in found]


def sweeps_saved(config: ConfigDict) -> bool:
    """Whether losses are measured on parameters that were saved before: no proxy is trained."""
    return bool(config.trajectories.snapshots or config.trajectories.checkpoints)


def target_names(config: ConfigDict) -> list[str]:
    """The selections that a target is trained on."""
    return [name for name, entry in config.selection.runs.items() if entry.train_target]


def _trains(config: ConfigDict) -> bool:
    return not (config.trajectories.path or sweeps_saved(config))


def proxy_users(config: ConfigDict) -> dict[Inputs, list[str]]:
    """The selections that go by a proxy's training, by that proxy, the config's own first.

    Without selections, later ones may go by that of the config's.
    """
    own, users = Inputs.of(config), dict[Inputs, list[str]]()
    for name in config.selection.runs:
        if (inputs := proxy_inputs(config, resolved_run(config, name))) is not None:
            users.setdefault(inputs, []).append(name)
    if not config.selection.runs or (users and config.clustering.compare):
        users.setdefault(own, [])
    return dict(sorted(users.items(), key=lambda item: (item[0] != own, bool(item[0].proxy))))


def proxy_inputs(config: ConfigDict, entry: dict[str, Any]) -> Inputs | None:
    """The proxy that a selection run goes by, in losses or features; None for none."""
    for feature in method_of(entry).features.values():
        if feature.by_proxy(config, entry):
            return inputs_of(feature, config, entry)
    return None


def _parts(config: ConfigDict) -> Iterator[Part]:
    if config.pool.path:
        yield _part(config, "pool", "pool", f"rows of {config.pool.path} as tokens")
    for inputs, users in proxy_users(config).items():
        yield _trajectories(config, inputs, _named(users) or "later selections")
    for count in config.clustering.compare:
        yield _part(config, f"cluster_counts/{count}", "selection", f"clustering.compare has {count}")
    yield from _selections(config)
    targets = target_names(config)
    for name in targets:
        replicate = of_seed(config, resolved_run(config, name)["seed"])
        yield _part(replicate, f"target/{name}", "target", f"trained on selection/{name}")
    if targets:
        evaluation = config.evaluation
        for task in find_tasks(evaluation.benchmarks, evaluation.path, evaluation.answer_type):
            for name in (UNTUNED, *targets):
                where = f"evaluation/{name}/{task.benchmark.name}"
                yield _part(config, where, "evaluation", f"rows of {task.path}")
    if config.analysis.theory:
        why = f"gradients of clusters of selection/{config.analysis.run}"
        replicate = of_seed(config, resolved_run(config, config.analysis.run)["seed"])
        yield _part(replicate, "theory", "analysis", why)
    yield Part("report", "report", "made anew each time", {})


def _selections(config: ConfigDict) -> Iterator[Part]:
    """The parts that features make, each for all selections that share it, and the selections."""
    shared: dict[str, tuple[Settings, list[str]]] = {}
    selections = []
    for name in config.selection.runs:
        entry = resolved_run(config, name)
        settings = deciding_run(config, name)
        for feature in method_of(entry).features.values():
            settings |= settings_of(feature, config, entry)
            if part := part_of(feature, config, entry):
                own = feature.settings(inputs_of(feature, config, entry).config(config), entry)
                shared.setdefault(part, (own, []))[1].append(name)
        selections.append(Part(f"selection/{name}", "selection", _subset(entry), settings))
    for part, (settings, names) in shared.items():
        yield Part(part, "selection", f"for {_named(names)}", settings)
    yield from selections


def proxy_part(config: ConfigDict, inputs: Inputs) -> str:
    """The part that trajectories are made in, or what is kept of those imported."""
    made = inputs.config(config)
    kind = "imported" if made.trajectories.path else "trajectories" if sweeps_saved(made) else "proxy"
    return "/".join(filter(None, (inputs.folder(config), kind)))


def _trajectories(config: ConfigDict, inputs: Inputs, users: str) -> Part:
    name, config = proxy_part(config, inputs), inputs.config(config)
    asked = config.trajectories
    if asked.path:
        return _part(config, name, "trajectories", f"losses in {asked.path}, for {users}")
    if asked.snapshots:
        return _part(config, name, "trajectories", f"sweeps of {asked.snapshots}, for {users}")
    if asked.checkpoints:
        steps = Cadence.of(asked).among(find_checkpoints(asked.checkpoints))
        why = (
            f"sweeps of {', '.join(asked.checkpoints)} at steps {_named(list(map(str, steps)))}, for {users}"
        )
        return _part(config, name, "trajectories", why)
    return _part(config, name, "proxy", f"trajectories for {users}")


def _part(config: ConfigDict, name: str, stage: str, why: str) -> Part:
    kind = name.rpartition("/")[2] if name.rpartition("/")[2] in PROXY_PARTS else name.partition("/")[0]
    return Part(name, stage, why, deciding(config, kind))


def _subset(entry: dict[str, Any]) -> str:
    if find_method(entry["method"]).takes_all:
        return f"by {entry['method']}"
    if entry["budget_tokens"]:
        return f"{entry['budget_tokens']:,} tokens by {entry['method']}"
    if entry["budget_fraction"]:
        return f"{entry['budget_fraction']:.3g} of the pool by {entry['method']}"
    return f"{entry['budget']:,} rows by {entry['method']}"


def _named(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"
