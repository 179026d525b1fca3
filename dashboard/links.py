"""Addresses of the dashboard's views: each page by name, each view by query parameters."""

from dataclasses import dataclass
from urllib.parse import urlencode

VIEWS = "views"
"""Folder of the page scripts. Not "pages": Streamlit serves a folder of that name beside app.py by itself, without
app.py, until the first visitor has run app.py."""


@dataclass(frozen=True)
class PageSpec:
    """A page: its file under views/, its path in the address bar, its title, icon and one-line description."""

    file: str
    path: str
    title: str
    icon: str
    help: str

    @property
    def target(self) -> str:
        """As `st.page_link` and `st.switch_page` take it: relative to app.py."""
        return f"{VIEWS}/{self.file}"


OVERVIEW = PageSpec(
    "overview.py", "overview", "Overview", ":material/monitoring:", "Pass rates and rewards by version, with intervals."
)
TRAJECTORIES = PageSpec(
    "trajectories.py",
    "trajectories",
    "Trajectories",
    ":material/forum:",
    "Every dialogue, turn by turn, with its verdicts.",
)
REVIEW = PageSpec(
    "review.py", "review", "Review", ":material/rate_review:", "Judged turns one by one: agree, correct, undo."
)
ITEMS = PageSpec(
    "items.py", "items", "Items", ":material/checklist:", "Checklist items and item kinds by pass rate, worst first."
)
SCENARIOS = PageSpec(
    "scenarios.py",
    "scenarios",
    "Checklists and scenarios",
    ":material/fact_check:",
    "What dialogues are played from and judged by: browse, edit, import.",
)
COMPARE = PageSpec(
    "compare.py",
    "compare",
    "Compare",
    ":material/compare_arrows:",
    "Two versions on the same scenarios: what got better, what got worse, side by side.",
)
JUDGES = PageSpec(
    "judges.py",
    "judges",
    "Judges",
    ":material/gavel:",
    "How far judges agree with people, with checks, with themselves and with each other; what they cost.",
)
TRAINING = PageSpec(
    "training.py", "training", "Training", ":material/trending_up:", "Runs, curves, gate decisions, versions, stages."
)
JOBS = PageSpec(
    "jobs.py",
    "jobs",
    "Jobs and schedules",
    ":material/event_repeat:",
    "What workers do, did and will do; schedules made and changed.",
)
CHAT = PageSpec("chat.py", "chat", "Chat", ":material/chat:", "Talk to the served agent; what is said is logged.")

PEOPLE = PageSpec("people.py", "people", "People", ":material/group:", "Who may sign in, and what they may do here.")
"""For operators alone; not one of PAGES."""

GATE_DECISIONS = "gate-decisions"
"""The place of the gate's decisions on the page Training; `?gate=ID` marks one of them."""

PAGES = (OVERVIEW, REVIEW, TRAJECTORIES, COMPARE, SCENARIOS, ITEMS, JUDGES, TRAINING, JOBS, CHAT)


def address(page: PageSpec, **parameters: str | int | float | None) -> str:
    """Relative address of a view; parameters that are None are left out."""
    query = urlencode({name: value for name, value in parameters.items() if value is not None})
    path = "./" if page is PAGES[0] else page.path  # the first page is served at the root
    return f"{path}?{query}" if query else path


def parameters(**values: str | int | float | None) -> dict[str, str]:
    """Query parameters without those that are None, as `st.switch_page` and `st.page_link` take them."""
    return {name: str(value) for name, value in values.items() if value is not None}
