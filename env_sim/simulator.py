"""Answers the tool calls of one dialogue; reads the scenario, writes nothing (the caller records the answers).

Who answers a call, in this order:

1. **Validation.** Arguments that violate the tool's schema are answered with an error, as the tool would.
2. **The world**, if the scenario names one that has the tool. It is asked for *every* valid call, so that its state is
   always that of this dialogue. A recording was made in the reference dialogue's state: once a rollout has gone its
   own way (cancelled another order, say) the same call must not get the reference's answer, so the world wins over
   the recording. Where both say the same, the answer is marked as recorded: the rollout is still on the reference's
   path.
3. **A recorded response** for equal arguments, where no world has the tool: the reference called the same thing. Calls
   that the reference made repeatedly with equal arguments are answered in its order, the last one from then on.
4. **An LLM** (`env_sim.llm_simulator`), if there is one.

Arguments are equal when their canonical forms are: keys in any order, defaults of the schema filled in, 1.0 = 1.
"""

import json
import time
from collections import defaultdict
from functools import lru_cache
from typing import Any, Protocol

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError

from agent.tools import ToolOutage
from env_sim.worlds import WORLDS, CombinedWorld, build_world
from store.records import RecordedCall, Scenario, ToolSpec, canonical_json
from store.trajectories import ToolAnswer
from store.vocabulary import ToolSource


class SimulatorError(ToolOutage):
    """The simulator could not answer: the trajectory has failed and is excluded; it is never a zero (invariant 3)."""


class SimulatorLlm(Protocol):
    """The last resort; `env_sim.llm_simulator.LlmSimulator` is one."""

    @property
    def provenance(self) -> dict[str, str]:
        """Model and prompt hash, kept with the trajectories that it answers."""
        ...

    async def answer(
        self, scenario: Scenario, seed: int, spec: ToolSpec, arguments: dict[str, Any], history: list[RecordedCall]
    ) -> str:
        """The response as JSON text, the same for equal (scenario, seed, tool, arguments). Raises SimulatorError."""
        ...


class Simulator:
    """The simulated tools of one dialogue of `scenario`.

    `seed` is shared by the dialogues that shall live in one world (a group). Raises SimulatorError where the
    scenario names an unknown world or a tool's schema is no JSON Schema.
    """

    def __init__(self, scenario: Scenario, seed: int, llm: SimulatorLlm | None = None) -> None:
        self._scenario = scenario
        self._seed = seed
        self._llm = llm
        self._specs = {spec.name: spec for spec in scenario.tools}
        self._validators = {spec.name: _compiled(spec.name, canonical_json(spec.parameters)) for spec in scenario.tools}
        self._history: list[RecordedCall] = []
        self._world: CombinedWorld | None = None
        self._world_tools: list[str] = []
        if scenario.world is not None:
            bundled = {spec.name for world in WORLDS.values() for spec in world.tools}
            self._world_tools = [name for name in self._specs if name in bundled]
            try:
                self._world = build_world(scenario.world, self._world_tools)
            except ValueError as error:
                raise SimulatorError(f"scenario {scenario.name}: {error}") from error
        self._recordings: dict[tuple[str, str], list[RecordedCall]] = defaultdict(list)
        for turn in scenario.turns:
            for step in turn.reference:
                for call in step.calls:
                    if call.name in self._specs:
                        self._recordings[self._key(call.name, call.arguments)].append(call)
        self._times_asked: dict[tuple[str, str], int] = defaultdict(int)

    async def answer(self, name: str, arguments: dict[str, Any], call_id: str) -> ToolAnswer:
        """Answer one call. Raises SimulatorError if nobody can (no recording, world or LLM; the LLM failed)."""
        started = time.perf_counter()
        response, is_error, source = await self._respond(name, arguments)
        self._history.append(RecordedCall(name=name, arguments=arguments, response=response, is_error=is_error))
        latency_ms = (time.perf_counter() - started) * 1000
        return ToolAnswer(call_id=call_id, response=response, is_error=is_error, source=source, latency_ms=latency_ms)

    async def _respond(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool, ToolSource]:
        spec = self._specs.get(name)
        if spec is None:
            return (
                error_text(f"unknown tool {name!r}; known tools: {', '.join(self._specs)}"),
                True,
                ToolSource.VALIDATION,
            )
        if problem := violation(self._validators[name], arguments):
            return error_text(f"invalid arguments for {name}: {problem}"), True, ToolSource.VALIDATION
        canonical = canonical_arguments(spec.parameters, arguments)
        recorded = self._recorded(name, canonical)
        if self._world is not None and name in self._world_tools:
            try:
                said = self._world.call(name, canonical)
            except Exception as error:  # the tool's boundary: a world's mistake is not the policy's
                call = f"{name}({canonical_json(canonical)})"
                raise SimulatorError(f"the world raised {type(error).__name__} on {call}: {error}") from error
            on_path = recorded is not None and _same_answer(recorded, said.text, said.is_error)
            return said.text, said.is_error, ToolSource.RECORDED if on_path else ToolSource.WORLD
        if recorded is not None:
            return recorded.response, recorded.is_error, ToolSource.RECORDED
        if self._llm is None:
            raise SimulatorError(
                f"no recording of scenario {self._scenario.name} and no world answers "
                f"{name}({canonical_json(canonical)}): name an LLM for it in the settings ([simulator])"
            )
        response = await self._llm.answer(self._scenario, self._seed, spec, canonical, list(self._history))
        return response, _is_error(response), ToolSource.LLM

    def _recorded(self, name: str, canonical: dict[str, Any]) -> RecordedCall | None:
        key = (name, canonical_json(canonical))
        recordings = self._recordings.get(key)
        if not recordings:
            return None
        nth = self._times_asked[key]
        self._times_asked[key] += 1
        return recordings[min(nth, len(recordings) - 1)]

    def _key(self, name: str, arguments: dict[str, Any]) -> tuple[str, str]:
        return name, canonical_json(canonical_arguments(self._specs[name].parameters, arguments))


def error_text(message: str) -> str:
    """An error as the tools of the bundled worlds say it."""
    return json.dumps({"error": message}, ensure_ascii=False, separators=(",", ":"))


def violation(validator: Draft202012Validator, arguments: dict[str, Any]) -> str | None:
    """What is wrong with the arguments, at most three complaints, or None."""
    complaints = []
    for error in validator.iter_errors(arguments):
        complaints.append(_complaint(error))
        if len(complaints) == 3:
            break
    return "; ".join(complaints) or None


def canonical_arguments(schema: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with the schema's defaults filled in and every whole number as an int (1.0 becomes 1)."""
    value = _canonical(schema, arguments)
    assert isinstance(value, dict)
    return value


def _canonical(schema: Any, value: Any) -> Any:
    rules = schema if isinstance(schema, dict) else {}
    if isinstance(value, dict):
        properties = rules.get("properties", {})
        filled = {
            name: rule["default"] for name, rule in properties.items() if isinstance(rule, dict) and "default" in rule
        }
        return {name: _canonical(properties.get(name), item) for name, item in {**filled, **value}.items()}
    if isinstance(value, list):
        return [_canonical(rules.get("items"), item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _complaint(error: ValidationError) -> str:
    where = ".".join(str(part) for part in error.absolute_path)
    # The message quotes the offending value, which the policy may have made very long.
    text = error.message if len(error.message) <= 160 else error.message[:160] + "…"
    return f"{where}: {text}" if where else text


@lru_cache(maxsize=4096)
def _compiled(name: str, schema: str) -> Draft202012Validator:
    """The validator of a schema, given as canonical JSON; compiled once for a process."""
    parameters = json.loads(schema)
    try:
        Draft202012Validator.check_schema(parameters)
    except SchemaError as error:
        raise SimulatorError(f"the parameters of tool {name!r} are no JSON Schema: {error.message}") from error
    return Draft202012Validator(parameters, format_checker=Draft202012Validator.FORMAT_CHECKER)


def _same_answer(recorded: RecordedCall, text: str, is_error: bool) -> bool:
    if recorded.is_error != is_error:
        return False
    if recorded.response == text:
        return True
    try:
        return canonical_json(json.loads(recorded.response)) == canonical_json(json.loads(text))
    except json.JSONDecodeError:
        return False


def _is_error(response: str) -> bool:
    """Whether an LLM's response is an error: a JSON object with a non-empty `error`."""
    value = json.loads(response)
    return isinstance(value, dict) and bool(value.get("error"))
