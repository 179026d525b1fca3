"""Generates the bundled scenarios: seeded, by split and domain, with a checklist of code checks for every turn.

Scenario i of (split, seed) depends on these three alone, so a longer list begins with the shorter one. Validation and
test hold a share of phrasings, and a share of scenarios with values, that training never saw; the test split also two
unseen domains. Reads env_sim/worlds; writes nothing.
"""

from collections.abc import Sequence
from hashlib import blake2b
from random import Random

from env_sim.episodes import EPISODES, TWO_TURNS, Dialogue, Episode
from env_sim.wording import HELD_OUT_SHARE
from env_sim.worlds import DOMAINS, SEEN, UNSEEN
from env_sim.worlds.intents import Unfit
from store.records import Scenario, ToolSpec, WorldRef
from store.vocabulary import Split

SEEN_DOMAINS: tuple[str, ...] = tuple(SEEN)
UNSEEN_DOMAINS: tuple[str, ...] = tuple(UNSEEN)

SYSTEM = "You help people by calling tools. Ask for what is missing; say so when no tool fits."
SOURCE = "bundled"
MAX_TOOLS = 5

TURN_COUNTS = {1: 56, 2: 34, 3: 6, 4: 4}
SKILLS = {
    "single_call": 32,
    "chained": 16,
    "parallel": 12,
    "missing_parameter": 12,
    "error_recovery": 16,
    "no_tool": 18,
    "ordered": 2,
}
ATTEMPTS = 200


def generate_scenarios(split: Split, count: int, seed: int, domains: Sequence[str] | None = None) -> list[Scenario]:
    """`count` scenarios, the domains in turn (default: the seen ones; in the test split also the unseen ones).

    Raises ValueError for a negative count, an unknown domain, or an unseen domain outside the test split.
    """
    split = Split(split)
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    default = SEEN_DOMAINS + UNSEEN_DOMAINS if split is Split.TEST else SEEN_DOMAINS
    chosen = tuple(default if domains is None else domains)
    if not chosen and count:
        raise ValueError("no domains to generate scenarios for")
    for name in chosen:
        if name not in DOMAINS:
            raise ValueError(f"unknown domain {name!r}; bundled ones are {', '.join(DOMAINS)}")
        if name in UNSEEN_DOMAINS and split is not Split.TEST:
            raise ValueError(f"domain {name!r} is unseen: only the test split may have it, not {split.value!r}")
    return [_generate(split, seed, index, chosen[index % len(chosen)]) for index in range(count)]


def _generate(split: Split, seed: int, index: int, domain: str) -> Scenario:
    for attempt in range(ATTEMPTS):
        random = Random(f"{split.value} {seed} {index} {domain} {attempt}")
        held_out = split is not Split.TRAIN
        new_values = held_out and random.random() < HELD_OUT_SHARE
        ref = WorldRef(name=domain, seed=2 * random.getrandbits(30) + new_values)
        dialogue = Dialogue(DOMAINS[domain], ref, held_out, random)
        plan = _plan(random)
        try:
            for _, episode in plan:
                episode(dialogue)
        except Unfit:
            continue
        said = [turn.user for turn in dialogue.turns]
        if held_out and _half_of(said) is not split:
            continue
        return Scenario(
            name=f"{domain}-{split.value}-{seed}-{index:04d}",
            domain=domain,
            source=SOURCE,
            split=split,
            seed=seed,
            system=SYSTEM,
            tools=_offered_tools(dialogue, random),
            turns=tuple(dialogue.turns),
            world=ref,
            seen=domain in SEEN_DOMAINS,
            tags=tuple(dict.fromkeys(skill for skill, _ in plan)),
        )
    raise RuntimeError(f"no {domain} dialogue fits its world in {ATTEMPTS} attempts (seed {seed}, scenario {index})")


def _half_of(said: Sequence[str]) -> Split:
    """Validation or test, whose wordings are of the same pools: what users say in one is not said in the other."""
    return (Split.VALIDATION, Split.TEST)[blake2b("\n".join(said).encode(), digest_size=1).digest()[0] % 2]


def _plan(random: Random) -> list[tuple[str, Episode]]:
    """Episodes of one or two skills (beside single calls) that fill a drawn number of turns."""
    (left,) = random.choices(list(TURN_COUNTS), list(TURN_COUNTS.values()))
    skills: list[str] = []
    plan: list[tuple[str, Episode]] = []
    while left:
        skill = _next_skill(random, left, skills)
        episode = _episode(random, skill, left)
        left -= _turns_of(episode)
        skills.append(skill)
        plan.append((skill, episode))
    random.shuffle(plan)
    return plan


def _next_skill(random: Random, left: int, skills: Sequence[str]) -> str:
    if len(skills) >= 2 or (skills and random.random() < 0.3):
        return "single_call"
    fitting = [
        name for name in SKILLS if name not in skills and any(_turns_of(episode) <= left for episode in EPISODES[name])
    ]
    (skill,) = random.choices(fitting, [SKILLS[name] for name in fitting])
    return skill


def _episode(random: Random, skill: str, left: int) -> Episode:
    return random.choice([episode for episode in EPISODES[skill] if _turns_of(episode) <= left])


def _turns_of(episode: Episode) -> int:
    return 2 if episode in TWO_TURNS else 1


def _offered_tools(dialogue: Dialogue, random: Random) -> tuple[ToolSpec, ...]:
    """The domain's tools, sometimes without some that are not needed, and up to two of other seen domains."""
    needed = {call.name for turn in dialogue.turns for step in turn.reference for call in step.calls}
    own = list(dialogue.domain.world.tools)
    spare = [spec for spec in own if spec.name not in needed]
    for spec in random.sample(spare, min(len(spare), random.choice((1, 2, 3, 4)))):
        if len(own) > 3:
            own.remove(spec)
    foreign = [spec for name, domain in SEEN.items() if name != dialogue.ref.name for spec in domain.world.tools]
    own += random.sample(foreign, min(random.choice((0, 1, 2)), MAX_TOOLS - len(own)))
    random.shuffle(own)
    return tuple(own)
