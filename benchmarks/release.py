"""From "the last group is complete" to "the new version answers": seconds by stage, on a round of the bundled model.

Sixteen groups of eight are played by the bundled model behind the real gateway and judged by a code check that about
half of its answers pass; then what a round of the loop does: rewards, groups, optimizer steps, weights written and
hashed, weights reloaded in the server, its proof, a first answer asked for by the new version's name. Dialogues are
shorter than the demo's, and so are the steps.
"""

import time
from pathlib import Path

import httpx
from rich.console import Console

from benchmarks.line import Line
from benchmarks.serving import serve
from store.records import Item, ReferenceStep, ReplyMentions, Scenario, ScenarioTurn
from store.runs import get_run, metrics_of
from store.scenarios import add_scenarios
from store.trajectories import list_trajectories
from store.vocabulary import FocusOn, Split
from train.progress import Stage, StageProgress
from train.rounds import Rounds

GROUPS = 16
NAME = "release"


def measure(home: Path) -> list[Line]:
    scenarios = [_scenario(n) for n in range(GROUPS)]
    with serve(home / "release") as (gateway, log, settings):
        rollout = settings.rollout.model_copy(update={"group_size": 8})
        rounds = Rounds(log, settings.model_copy(update={"rollout": rollout}), name=NAME, seed=1)
        stage = Stage(StageProgress({}, Console(quiet=True)), NAME, NAME)
        add_scenarios(log, scenarios)
        rounds.play(stage, 1, scenarios, "v0001", lambda: None)
        judged = time.time()
        complete = max(t.ended_at for t in list_trajectories(log, batch=f"{NAME}/round-1", limit=None) if t.ended_at)
        version = rounds.train(stage, 1, "v0001")
        if version is None:
            raise RuntimeError("no group has a spread of rewards: there is nothing to train on")
        trained = time.time()
        steps = sum(seconds for _, seconds in metrics_of(log, get_run(log, f"{NAME}/round-1").id)["seconds"])
        swapped = gateway.stage(version)
        held = time.time()
        body = {"model": f"policy@{version}", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=60).raise_for_status()
        answered = time.time()
    began = complete.timestamp()
    parts = {
        "rewards of the last dialogues": judged - began,
        "optimizer steps": steps,
        "groups and model loaded, probe computed, weights written and hashed": trained - judged - steps,
        "weights checked and reloaded in the server": held - trained - swapped["proof_s"],
        "proof": swapped["proof_s"],
        "first answer": answered - held,
    }
    whole = answered - began
    lines = [
        Line(f"release: {what}", f"{seconds:.2f} s", f"of {whole:.1f} s", f"{seconds / whole:.2f}", "–")
        for what, seconds in parts.items()
    ]
    without_steps = whole - steps
    peer = f"{steps:.1f} s of optimizer steps"
    return [
        *lines,
        Line("release: group complete to new version answers", f"{whole:.1f} s", peer, f"{whole / steps:.2f}", "–"),
        Line(
            "release: of it not learning",
            f"{without_steps:.1f} s",
            f"of {whole:.1f} s",
            f"{without_steps / whole:.2f}",
            "–",
        ),
    ]


def _scenario(n: int) -> Scenario:
    item = Item(
        id="names_one",
        focus_on=FocusOn.REPLY,
        question="Does the reply name blue, green or red?",
        weight=1.0,
        check=ReplyMentions(all_of=(("blue", "green", "red"),)),
    )
    turn = ScenarioTurn(
        user=f"Name one colour, number {n}.", reference=(ReferenceStep(reply="blue"),), checklist=(item,)
    )
    return Scenario(
        name=f"colour-{n}",
        domain="colours",
        source="bench",
        split=Split.TRAIN,
        seed=n,
        system="",
        tools=(),
        turns=(turn,),
    )
