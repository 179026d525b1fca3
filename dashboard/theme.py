"""The one look: verdict colours and symbols, and the style sheet of everything that Streamlit has no widget for.

Colours are Okabe and Ito's, so that colour-blind people can tell them apart; no verdict is ever shown by colour alone.
Surfaces are mixed from the text colour, so that they fit the light and the dark theme.
"""

from dataclasses import dataclass
from typing import Any

from store.vocabulary import Outcome, VersionState


@dataclass(frozen=True)
class Mark:
    """How an outcome looks: white text on `color` has a contrast of at least 4.5."""

    color: str
    symbol: str


MARKS: dict[Outcome, Mark] = {
    Outcome.PASS: Mark("#0072B2", "✓"),
    Outcome.FAIL: Mark("#B85000", "✗"),
    Outcome.UNSCORED: Mark("#6B7280", "?"),
}

STATE_COLORS: dict[VersionState, str] = {
    VersionState.LIVE: "#00785A",
    VersionState.CANDIDATE: "#8A5A00",
    VersionState.RETIRED: "#6B7280",
    VersionState.REFUSED: "#B85000",
}

STATUS_MARKS: dict[str, tuple[str, str]] = {
    "queued": ("…", "#6B7280"),
    "running": ("▶", "#8A5A00"),
    "done": ("✓", "#00785A"),
    "failed": ("✗", "#B85000"),
    "cancelled": ("–", "#6B7280"),
    "passed": ("✓", "#00785A"),
    "refused": ("✗", "#B85000"),
    "undecided": ("?", "#6B7280"),
}
"""Symbol and colour of what jobs, runs and the gate came to."""

ACCENT = "#0072B2"
CONTRAST = "#D55E00"
NEUTRAL = "#8A919B"


def change_color(low: float, high: float) -> str:
    """Of a change whose interval goes from `low` to `high`: grey where it may be none."""
    return ACCENT if low > 0 else CONTRAST if high < 0 else NEUTRAL


def change_of_metric(low: float, high: float) -> dict[str, Any]:
    """The same as `st.metric` takes it, with an arrow: its blue and orange are set to ours in the configuration."""
    color, arrow = {ACCENT: ("blue", "up"), CONTRAST: ("orange", "down"), NEUTRAL: ("gray", "off")}[
        change_color(low, high)
    ]
    return {"delta_color": color, "delta_arrow": arrow}


STYLE = """
<style>
[data-testid="stMainBlockContainer"] { padding: 2.4rem 2.6rem 4rem; max-width: 1400px; }
[data-testid="stBottomBlockContainer"] { padding: 1rem 2.6rem 2rem; max-width: 1400px; }
[data-testid="stBottomBlockContainer"] [data-testid="stChatInput"] { max-width: calc((100% - 40px) * 7 / 9); }
.cl { --line: color-mix(in srgb, currentColor 14%, transparent);
      --wash: color-mix(in srgb, currentColor 4%, transparent);
      --soft: color-mix(in srgb, currentColor 62%, transparent);
      font-size: 0.93rem; line-height: 1.5; overflow-wrap: break-word; }
.cl * { box-sizing: border-box; }
.cl-text { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
.cl-mono { font-family: "Source Code Pro", ui-monospace, monospace; font-size: 0.8rem; line-height: 1.45;
           white-space: pre-wrap; overflow-wrap: anywhere; max-height: 19rem; overflow: auto; unicode-bidi: isolate; }
.cl-refused { border-left: 4px solid #B85000; padding: 0.3rem 0.7rem; font-size: 0.87rem; overflow-wrap: anywhere; }
.cl code { font-family: "Source Code Pro", ui-monospace, monospace; font-size: 0.82rem; overflow-wrap: anywhere; }
.cl-log { font-family: "Source Code Pro", ui-monospace, monospace; font-size: 0.78rem; line-height: 1.5;
          white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
.cl-soft { color: var(--soft); font-size: 0.8rem; }
.cl-label { color: var(--soft); font-size: 0.7rem; font-weight: 650; letter-spacing: 0.06em;
            text-transform: uppercase; margin-bottom: 0.2rem; }
.cl-badge { display: inline-block; color: #fff; border-radius: 5px; padding: 0.02rem 0.45rem; font-size: 0.7rem;
            font-weight: 680; letter-spacing: 0.03em; white-space: nowrap; line-height: 1.5; }
.cl-chip { display: inline-block; border: 1px solid var(--line); border-radius: 5px; padding: 0 0.4rem;
           font-size: 0.72rem; color: var(--soft); white-space: nowrap; line-height: 1.55; max-width: 100%;
           overflow: hidden; text-overflow: ellipsis; vertical-align: bottom; }
.cl-row { display: flex; flex-wrap: wrap; gap: 0.4rem 0.5rem; align-items: center; }
.cl-user { background: color-mix(in srgb, #0072B2 13%, transparent); border-radius: 12px 12px 12px 3px;
           padding: 0.6rem 0.9rem; margin-bottom: 0.9rem; }
.cl-step { border: 1px solid var(--line); border-radius: 10px; margin-bottom: 0.7rem; overflow: hidden; }
.cl-step > header { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0.2rem 0.8rem;
                    background: var(--wash); padding: 0.3rem 0.8rem; border-bottom: 1px solid var(--line); }
.cl-step > header b { font-size: 0.8rem; font-weight: 620; }
.cl-step > section { padding: 0.55rem 0.8rem; }
.cl-step > section + section { border-top: 1px solid var(--line); }
.cl details > summary { cursor: pointer; color: var(--soft); font-size: 0.8rem; }
.cl details[open] > summary { margin-bottom: 0.35rem; }
.cl-call { font-weight: 620; font-variant-ligatures: none;
           font-family: "Source Code Pro", ui-monospace, monospace; font-size: 0.83rem; }
.cl-block { background: var(--wash); border-radius: 7px; padding: 0.4rem 0.6rem; margin-top: 0.35rem; }
.cl-item { border: 1px solid var(--line); border-left-width: 4px; border-radius: 8px; padding: 0.5rem 0.75rem;
           margin-bottom: 0.55rem; }
.cl-item > .cl-question { font-weight: 560; margin: 0.25rem 0 0.15rem; }
.cl-heat { font-family: "Source Code Pro", ui-monospace, monospace; font-size: 0.82rem; line-height: 1.75;
           white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; margin: 0.5rem 0; }
.cl-heat i { font-style: normal; border-radius: 3px; padding: 0.08rem 0; }
.cl-quote { border-left: 3px solid var(--line); padding-left: 0.6rem; margin: 0.3rem 0; }
.cl mark { color: inherit; background: none; }
.cl mark.cl-quoted { border-bottom: 2px dotted #B8860B; }
.cl mark.cl-focus { background: color-mix(in srgb, #E69F00 38%, transparent); border-radius: 3px;
                    box-shadow: 0 0 0 2px color-mix(in srgb, #E69F00 38%, transparent); }
.cl-block.cl-quoted { outline: 2px dotted #B8860B; }
.cl-block.cl-focus { background: color-mix(in srgb, #E69F00 26%, transparent); outline: 2px solid #E69F00; }
.cl-item.cl-now { background: color-mix(in srgb, #E69F00 12%, transparent); border-color: #E69F00; }
.cl-under { margin-bottom: 0.8rem; }
.st-key-judging { position: sticky; top: 3.4rem; max-height: calc(100vh - 4rem); overflow-y: auto; padding: 2px; }
[class*="st-key-item-"] kbd { display: none; }
.cl-folded { border: 1px solid var(--line); border-radius: 10px; padding: 0.45rem 0.8rem; margin-bottom: 0.7rem; }
.cl-folded > summary { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.cl-track.cl-thin { height: 0.5rem; background: var(--wash); border: none; overflow: hidden; margin: 0.35rem 0; }
.cl-track.cl-thin i { top: 0; left: 0; height: 100%; background: #0072B2; opacity: 0.85; }
.cl kbd { border: 1px solid var(--line); border-radius: 4px; padding: 0 0.3rem; font-size: 0.72rem; }
.cl-empty { border: 1px dashed var(--line); border-radius: 12px; padding: 2.2rem 1.5rem; text-align: center; }
.cl-empty p { margin: 0.8rem 0 0; }
.cl-empty p code { background: var(--wash); border: 1px solid var(--line); border-radius: 6px; padding: 0.15rem 0.5rem;
                 font-size: 0.95rem; }
.cl-empty h4 { margin: 0 0 0.35rem; padding: 0; font-size: 1.05rem; }
.cl table { border-collapse: collapse; width: 100%; font-size: 0.87rem; font-variant-numeric: tabular-nums; }
.cl th { text-align: left; color: var(--soft); font-weight: 560; font-size: 0.76rem; padding: 0.35rem 0.7rem;
         border-bottom: 1px solid var(--line); white-space: nowrap; vertical-align: bottom; }
.cl td { padding: 0.42rem 0.7rem; border-bottom: 1px solid var(--line); vertical-align: top; max-width: 46rem; }
.cl tr:last-child td { border-bottom: none; }
.cl table.cl-fill td:last-child { width: 100%; }
.cl table.cl-fill td:not(:last-child) { white-space: nowrap; }
.cl td.num, .cl th.num { text-align: right; white-space: nowrap; }
.cl-tree { font-family: "Source Code Pro", ui-monospace, monospace; white-space: pre; color: var(--soft); }
.cl-scroll { overflow-x: auto; }
.cl a { color: inherit; text-decoration: underline; text-underline-offset: 2px;
        text-decoration-color: color-mix(in srgb, #0072B2 65%, transparent); }
.cl a:hover { text-decoration-color: currentColor; }
.cl-title { font-size: 1.15rem; font-weight: 640; margin-bottom: 0.3rem; overflow-wrap: anywhere; }
.cl-forest { display: grid; grid-template-columns: fit-content(11rem) minmax(7rem, 1fr) auto auto;
             gap: 0.42rem 0.8rem; align-items: center; }
.cl-name { overflow-wrap: anywhere; font-size: 0.88rem; }
.cl-value { text-align: right; font-weight: 620; font-variant-numeric: tabular-nums; font-size: 0.88rem; }
.cl-forest .cl-soft { font-variant-numeric: tabular-nums; white-space: nowrap; }
.cl-track { position: relative; height: 1.15rem; border-radius: 4px;
            background: linear-gradient(to right, var(--line) 1px, transparent 1px) 0 0 / 25% 100%, var(--wash);
            border-right: 1px solid var(--line); }
.cl-track i { position: absolute; top: calc(50% - 1.5px); height: 3px; border-radius: 2px; opacity: 0.55; }
.cl-track b { position: absolute; top: calc(50% - 5px); width: 10px; height: 10px; margin-left: -5px;
              border-radius: 50%; }
.cl-zero::before { content: ""; position: absolute; left: 50%; top: 0; bottom: 0; width: 2px; margin-left: -1px;
                   background: var(--soft); opacity: 0.6; }
.cl-sides { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 0.3rem 1.2rem; }
.cl-both { grid-column: 1 / -1; }
.cl-differs { border-left: 4px solid #D55E00; border-radius: 4px; padding-left: 0.6rem; margin-bottom: 0.5rem; }
.cl-same { border-left: 4px solid transparent; padding-left: 0.6rem; margin-bottom: 0.5rem; }
.cl-differs > .cl-row, .cl-same > .cl-row { margin-bottom: 0.3rem; }
.cl-gap { border: 1px dashed var(--line); border-radius: 10px; margin-bottom: 0.7rem; min-height: 3rem; }
.cl-recent { padding: 0.4rem 0; border-bottom: 1px solid var(--line); font-size: 0.87rem; overflow-wrap: anywhere; }
.cl-turn { display: flex; flex-direction: column; gap: 0.55rem; padding-top: 0.1rem; }
.cl-turn > .cl-text { font-size: 0.98rem; line-height: 1.6; }
.cl-tool { border: 1px solid var(--line); border-radius: 9px; overflow: hidden; }
.cl .cl-tool > summary { display: flex; align-items: center; gap: 0.6rem; padding: 0.32rem 0.7rem; color: inherit;
                         list-style: none; background: var(--wash); margin: 0; }
.cl-tool > summary::-webkit-details-marker { display: none; }
.cl-tool > summary::before { content: "›"; color: var(--soft); font-weight: 650; transition: transform 0.12s; }
.cl-tool[open] > summary::before { transform: rotate(90deg); }
.cl-preview { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; color: var(--soft);
              font-family: "Source Code Pro", ui-monospace, monospace; font-size: 0.76rem; unicode-bidi: isolate; }
.cl-marks { display: flex; gap: 0.45rem; align-items: center; white-space: nowrap; }
.cl-tool > .cl-block { background: none; margin: 0; padding: 0.55rem 0.8rem 0.7rem; }
.cl-tool .cl-mono + .cl-label { margin-top: 0.6rem; }
.cl-caret { display: inline-block; width: 0.45rem; height: 1rem; border-radius: 2px; background: #0072B2;
            margin-left: 0.25rem; vertical-align: -0.15rem;
            animation: cl-blink 1.1s steps(2, start) infinite; }
.cl-busy::before { content: ""; display: inline-block; width: 0.5rem; height: 0.5rem; margin-right: 0.5rem;
                   border-radius: 50%; background: #0072B2; animation: cl-blink 1.1s steps(2, start) infinite; }
@keyframes cl-blink { to { visibility: hidden; } }
.st-key-question { border-left: 4px solid #8A5A00 !important; }
.st-key-question .cl-mono { margin-top: 0.4rem; }
.cl-chats { display: flex; flex-direction: column; }
.cl-recent.cl-open { border-left: 3px solid #0072B2; padding-left: 0.6rem; }
.cl-bar { display: inline-block; height: 0.55rem; border-radius: 3px; background: #0072B2; opacity: 0.75;
          min-width: 2px; vertical-align: middle; }
.cl-axis { display: flex; justify-content: space-between; font-size: 0.68rem; color: var(--soft); margin-top: -0.3rem; }
</style>
"""
