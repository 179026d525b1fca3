"""What the pictures of the docs show: the views chosen from a log, and what is said of those it cannot fill."""

from urllib.parse import parse_qs, urlparse

from dashboard.links import REVIEW
from dashboard.screenshots import choose_views
from reward.review import read_turn
from store.database import Log
from tests.pages import html, open_page
from tests.sample_log import CHAT_ID


def test_each_picture_shows_what_its_page_is_for(sample: Log) -> None:
    views, missing = choose_views(sample)
    asked = {name: {k: v[0] for k, v in parse_qs(urlparse(view).query).items()} for name, view in views.items()}
    assert asked["chat"] == {"session": CHAT_ID}
    assert len(asked["scenarios"]["opened"]) == 64 and "trajectory" in asked["trajectory"]
    name, _, index = asked["review"]["turn"].rpartition(":")
    shown = read_turn(sample, (name, int(index)))
    assert shown is not None
    (focused,) = [one for one in shown.items if one.item.id == asked["review"]["focus"]]
    assert focused.judged is not None and focused.judged.quote and focused.judged.outcome == "FAIL"
    assert "cl-focus" in html(open_page(REVIEW, **asked["review"]))
    assert list(missing) == ["judges"]


def test_a_log_without_an_llm_judge_is_said_to_have_no_picture_of_judges(empty: Log) -> None:
    views, missing = choose_views(empty)
    assert "judges" not in views and "checkloop judge --calibrate" in missing["judges"]
    assert {"review", "scenarios", "trajectory"} <= missing.keys() and "overview" in views
