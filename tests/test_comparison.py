"""Two versions on the same scenarios: the pairing by hand, what the log gives, the command, the page."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import update

import checkloop
from dashboard.alignment import align_steps
from dashboard.links import COMPARE
from reward.comparison import ScenarioPair, compare_versions, item_counts, measure_pairs, pair_dialogues
from store.database import Log
from store.figures import Counts
from store.objections import retire_item
from store.played import PlayedDialogue, played_by, versions_that_played
from store.scenarios import item_ids
from store.schema import StepRow
from store.trajectories import end_trajectory
from store.verdicts import Reward, Verdict, add_rewards, add_verdicts
from store.vocabulary import Origin, Outcome, Split, StopReason, VerdictSource
from tests.pages import html, open_page, shown
from tests.store_examples import a_scenario, start
from tests.turn_records import call, turn

AT = datetime(2026, 11, 22, tzinfo=UTC)
PASS, FAIL, UNSCORED = Outcome.PASS, Outcome.FAIL, Outcome.UNSCORED


def played(name: str, scenario: str, value: float | None, seed: int = 1, passed: bool = False) -> PlayedDialogue:
    return PlayedDialogue(name, scenario, f"scenario {scenario}", "travel", True, seed, value, passed, AT)


def pair_of(before: float, after: float, scenario: str = "s") -> ScenarioPair:
    (pair,), _ = pair_dialogues([played("b", scenario, before)], [played("a", scenario, after)])
    return pair


def test_pairs_by_hand() -> None:
    """s1: seeds 1 and 2 before, 2 and 3 after: seed 2 counts alone, 0.4 -> 0.9. s2: no seed in common: the means
    (0.2 + 0.6) / 2 -> 0.1. s3 could not be judged afterwards, s4 was not played before."""
    before = [
        played("b1", "s1", 0.0, 1),
        played("b2", "s1", 0.4, 2),
        played("b3", "s2", 0.2, 5),
        played("b4", "s2", 0.6, 6),
        played("b5", "s3", 1.0),
    ]
    after = [
        played("a1", "s1", 0.9, 2),
        played("a2", "s1", 0.0, 3),
        played("a3", "s2", 0.1, 7),
        played("a4", "s3", None),
        played("a5", "s4", 1.0),
    ]
    pairs, left_out = pair_dialogues(before, after)
    told = [(pair.scenario_hash, pair.before_mean, pair.after_mean, pair.same_worlds) for pair in pairs]
    assert told == [("s2", 0.4, 0.1, False), ("s1", 0.4, 0.9, True)], "regressions first"
    assert [one.trajectory_id for one in (*pairs[1].before, *pairs[1].after)] == ["b2", "a1"]
    assert (left_out.only_before, left_out.only_after) == (1, 1)
    assert (left_out.unjudged_before, left_out.unjudged_after, left_out.unjudged) == (0, 1, 1)


def test_a_difference_by_hand_and_its_interval() -> None:
    few = measure_pairs("all", [pair_of(0.5, 0.7), pair_of(0.5, 0.4), pair_of(0.5, 0.5)], seed=1)
    assert few.difference == pytest.approx((0.2 - 0.1 + 0.0) / 3) and few.interval is None
    assert (few.better, few.worse, few.scenarios) == (1, 1, 3)
    many = measure_pairs("all", [pair_of(0.5, 0.6)] * 10, seed=1)
    assert many.interval is not None
    assert (many.interval.low, many.interval.high) == (pytest.approx(0.1), pytest.approx(0.1))


def test_shares_of_items_by_hand() -> None:
    """Item 1 passes in both of two dialogues before and in one of two after; item 2 is not reached after; item 3 was
    UNSCORED throughout before, of which nothing can be said; item 4 was UNSCORED once, the other dialogue counts."""
    (pair,), _ = pair_dialogues(
        [played("b1", "s", 1.0, 1), played("b2", "s", 1.0, 2)], [played("a1", "s", 0.5, 1), played("a2", "s", 0.5, 2)]
    )
    shares = item_counts(
        pair,
        {
            "b1": {1: PASS, 2: PASS, 3: UNSCORED, 4: UNSCORED},
            "b2": {1: PASS, 2: FAIL, 3: UNSCORED, 4: PASS},
            "a1": {1: PASS, 3: PASS, 4: FAIL},
            "a2": {1: FAIL, 3: PASS, 4: FAIL},
        },
    )
    assert shares == {
        1: (Counts(2, 0), Counts(1, 1)),
        2: (Counts(1, 1), Counts(0, 2)),
        4: (Counts(1, 0, 1), Counts(0, 2)),
    }


def test_steps_stand_beside_those_that_call_the_same() -> None:
    left = turn([call("find", {"city": "Paris"}, {"price": 1})], [call("book", {"id": 1}, {"ok": True})], "Done.").steps
    right = turn([call("book", {"id": 2}, {"ok": True})], "Done.").steps
    told = [(bool(pair.left), bool(pair.right), pair.differs) for pair in align_steps(left, right)]
    assert told == [(True, False, ("only here",)), (True, True, ("arguments",)), (True, True, ())]
    changed = right[1].model_copy(update={"content": "Sorry.", "thinking": "Hm."})
    assert align_steps(left[2:], [changed])[0].differs == ("text", "thinking")


def test_the_log_s_versions_are_compared_over_what_both_played(sample: Log) -> None:
    found = compare_versions(sample, before="v0001", after="v0003")
    before = {one.scenario_hash: one.value for one in played_by(sample, "v0001", origin=Origin.EVALUATION)}
    after = {one.scenario_hash: one.value for one in played_by(sample, "v0003", origin=Origin.EVALUATION)}
    shared = [digest for digest in before if before[digest] is not None and after.get(digest) is not None]
    assert found.all is not None and found.all.scenarios == len(shared) == len(found.pairs)
    difference = sum((after[one] or 0) - (before[one] or 0) for one in shared) / len(shared)
    assert found.all.difference == pytest.approx(difference)
    values = [pair.difference for pair in found.pairs]
    assert values == sorted(values) and values[0] < 0 < values[-1]
    assert {stratum.name for stratum in found.domains} == {"shop", "travel", "banking (unseen)"}
    assert all(change.after < change.before for change in found.lost) and found.lost
    assert compare_versions(sample, before="v0001", after="v0003", split=Split.TRAIN).all is None
    assert compare_versions(sample, before="v0001", after="v0002").all is None


def test_an_item_that_people_threw_out_is_neither_lost_nor_gained(sample: Log) -> None:
    lost = compare_versions(sample, before="v0001", after="v0003").lost[0].item
    retire_item(sample, lost.scenario_hash, lost.turn_index, lost.key, person="ann", reason="it asks for two things")
    found = compare_versions(sample, before="v0001", after="v0003")
    assert lost.id not in {change.item.id for change in (*found.lost, *found.gained)}


def test_a_reward_that_was_taken_back_leaves_with_its_pair(sample: Log) -> None:
    found = compare_versions(sample, before="v0001", after="v0003")
    gone = found.pairs[0].after[0].trajectory_id
    add_rewards(sample, [Reward(gone, None, (), None, 1, "nobody could decide")])
    after = compare_versions(sample, before="v0001", after="v0003")
    assert len(after.pairs) == len(found.pairs) - 1
    assert after.left_out.unjudged_after == found.left_out.unjudged_after + 1


def test_the_command_prints_what_changed(
    sample: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["checkloop", "compare", "v0001", "v0003"])
    checkloop.main()
    said = capsys.readouterr().out
    found = compare_versions(sample, before="v0001", after="v0003")
    assert found.all is not None and f"{100 * found.all.difference:+.1f} (no interval)" in said
    assert found.pairs[0].scenario in said and found.lost[0].item.question in said
    monkeypatch.setattr("sys.argv", ["checkloop", "compare", "v0001", "v0002"])
    checkloop.main()
    assert "no judged scenario in common" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["checkloop", "compare", "v0001", "v0999"])
    with pytest.raises(SystemExit):
        checkloop.main()
    assert "v0999" in capsys.readouterr().err


def test_the_page_shows_regressions_first_and_leads_to_the_dialogues(sample: Log) -> None:
    app = open_page(COMPARE)
    found = compare_versions(sample, before="v0001", after="v0003")
    assert found.all is not None
    assert f"{100 * found.all.difference:+.1f} points" in shown(app) and "too few to say" in html(app)
    places = [html(app).index(f"scenario={pair.scenario_hash}") for pair in found.pairs]
    assert places == sorted(places)
    app = open_page(COMPARE, scenario=found.pairs[0].scenario_hash)
    said = html(app)
    for one in (*found.pairs[0].before, *found.pairs[0].after):
        assert f"trajectory={one.trajectory_id}" in said and f"reward {one.value:.2f}" in said
    assert "differs" in said and "cl-differs" in said
    next(button for button in app.button if button.label == "Next").click().run()
    assert app.query_params["scenario"] == found.pairs[1].scenario_hash
    assert found.pairs[1].scenario in html(app)
    next(button for button in app.button if button.label == "All scenarios").click().run()
    assert "scenario" not in app.query_params


def test_the_address_says_which_versions(sample: Log) -> None:
    app = open_page(COMPARE)
    pair = [app.selectbox(key=key).value for key in ("c_before", "c_after")]
    assert [app.query_params[key] for key in ("c_before", "c_after")] == pair, "a link shows the same tomorrow"
    assert open_page(COMPARE, c_before="v0099").selectbox(key="c_before").value == pair[0]
    app = open_page(COMPARE, c_origin="rollout")
    assert app.selectbox(key="c_after").options == ["v0001", "v0002"]
    app = open_page(COMPARE, c_before="v0003", c_after="v0001", c_domain="shop")
    assert (app.selectbox(key="c_before").value, app.selectbox(key="c_domain").value) == ("v0003", "shop")
    assert "banking" not in html(app)
    app.selectbox(key="c_split").set_value("train").run()
    assert "share no judged scenario" in html(app)


def test_dialogues_that_another_version_had_a_hand_in_are_left_out(sample: Log) -> None:
    whole = played_by(sample, "v0001", origin=Origin.EVALUATION)
    steps = StepRow.__table__
    with sample.writing() as connection:
        of_one = (steps.c.trajectory_id == whole[0].trajectory_id) & (steps.c.index == 0)
        connection.execute(update(steps).where(of_one).values(version="v0002"))
    left = played_by(sample, "v0001", origin=Origin.EVALUATION)
    assert {one.trajectory_id for one in whole} - {one.trajectory_id for one in left} == {whole[0].trajectory_id}


def test_what_a_version_played_is_read_alike_on_both_databases(log: Log) -> None:
    scenario = a_scenario(split=Split.TEST)
    start(log, "b1", scenario=scenario, version="v0001", origin=Origin.EVALUATION, seed=3)
    start(log, "a1", "a2", scenario=scenario, version="v0002", origin=Origin.EVALUATION, seed=3)
    start(log, "a3", scenario=scenario, version="v0002", origin=Origin.ROLLOUT, seed=3)
    for name in ("b1", "a1", "a3"):
        end_trajectory(log, name, StopReason.COMPLETED)
    add_rewards(
        log, [Reward("b1", 0.1, (), False, 0), Reward("b1", 0.5, (), False, 0), Reward("a1", 0.25, (), False, 0)]
    )
    (item, *_) = item_ids(log, scenario.hash).values()
    for name, outcome in (("b1", PASS), ("a1", FAIL)):
        add_verdicts(
            log, [Verdict(name, 0, item, "asks-weather", outcome, None, VerdictSource.CODE, "c", None, "", "")]
        )
    assert versions_that_played(log, Origin.EVALUATION) == ["v0001", "v0002"]
    found = compare_versions(log, before="v0001", after="v0002", split=Split.TEST, domain="weather")
    (pair,) = found.pairs
    assert (pair.before_mean, pair.after_mean, pair.same_worlds) == (0.5, 0.25, True)
    assert [(change.item.key, change.before, change.after) for change in found.lost] == [("asks-weather", 1.0, 0.0)]
    assert compare_versions(log, before="v0001", after="v0002", domain="travel").all is None


def test_the_dialogues_that_were_chosen_stand_in_the_address_and_give_way_to_the_next_scenario_s(sample: Log) -> None:
    found = compare_versions(sample, before="v0001", after="v0002", origin=Origin.ROLLOUT)
    place = next(n for n, pair in enumerate(found.pairs) if len(pair.before) > 1 and n + 1 < len(found.pairs))
    first, second = found.pairs[place : place + 2]
    asked = {"c_origin": "rollout", "c_before": "v0001", "c_after": "v0002"}
    app = open_page(COMPARE, **asked, scenario=first.scenario_hash)
    assert any(str(app.query_params["left"]).startswith(one.trajectory_id) for one in first.before)
    next(button for button in app.button if button.label == "Next").click().run()
    assert not app.exception and app.query_params["scenario"] == second.scenario_hash
    assert app.selectbox(key="left").value in {one.trajectory_id for one in second.before}


def test_every_item_that_changed_can_be_reached_page_by_page_and_from_the_command(
    sample: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compare_versions(sample, before="v0001", after="v0003")
    assert len(found.gained) > 15
    seen: list[str] = []
    for page in range(1, -(-len(found.gained) // 15) + 1):
        app = open_page(COMPARE, c_before="v0001", c_after="v0003", c_gained_page=str(page))
        rows = html(app).split("passed v0003")[-1].split("<tr>")[1:]
        assert len(rows) <= 15
        seen += [row.split("<td>")[1].split("</td>")[0] + row.split("href=")[1].split("</a>")[0] for row in rows]
    assert len(seen) == len(set(seen)) == len(found.gained)
    monkeypatch.setattr("sys.argv", ["checkloop", "compare", "v0001", "v0003", "--limit", "4"])
    checkloop.main()
    assert f"4 of {len(found.gained)}: `--limit {len(found.gained)}` shows them all" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["checkloop", "compare", "v0001", "v0003", "--limit", str(len(found.gained))])
    checkloop.main()
    said = capsys.readouterr().out
    assert "shows them all" not in said and said.count(" of 1") >= 2 * len(found.gained)


def test_an_interval_s_numbers_and_what_it_stands_on_are_there_without_a_pointer(sample: Log) -> None:
    scenarios = 12
    for n in range(scenarios):
        scenario = a_scenario(name=f"s{n}", split=Split.TEST)
        for version, value in (("v0011", 0.2), ("v0012", 0.9)):
            start(sample, f"{version}-{n}", scenario=scenario, version=version, origin=Origin.EVALUATION, seed=n)
            end_trajectory(sample, f"{version}-{n}", StopReason.COMPLETED)
            unjudged = n == 0 and version == "v0012"
            add_rewards(sample, [Reward(f"{version}-{n}", None if unjudged else value, (), value > 0.5, 0)])
    app = open_page(COMPARE, c_before="v0011", c_after="v0012")
    metrics = {metric.label: metric for metric in app.metric}
    assert metrics["Paired difference"].delta == "[+70.0, +70.0]"
    assert metrics["Fully passed dialogues"].delta == "+100.0 points [+100.0, +100.0]"
    assert '+70.0 <span class="cl-soft">[+70.0, +70.0]</span>' in html(app)
    assert f"Paired: 11 of the {scenarios} scenarios that both played (92 %), 1 left out as not judged" in html(app)
    assert metrics["Paired difference"].proto.color == metrics["Fully passed dialogues"].proto.color
    assert "no interval" in html(open_page(COMPARE, c_before="v0001", c_after="v0003"))
