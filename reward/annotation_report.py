"""What a run of the annotator comes to, in lines for a person. Pure; reads and writes nothing."""

from reward.annotator import Report
from reward.examination import Annotated, Cost
from reward.self_test import undecided_text
from store.vocabulary import AnnotationStatus


def report_lines(report: Report) -> list[str]:
    """What a person is told at the end."""
    done, open_ones, failed = (
        report.of(status) for status in (AnnotationStatus.DONE, AnnotationStatus.NEEDS_PERSON, None)
    )
    lines = [
        f"{len(done)} dialogues annotated, {len(open_ones)} wait for a person (checkloop annotate --list), "
        f"{len(failed)} without an answer, {report.skipped} skipped (--again writes them anew)"
    ]
    tests = [one.figures["self_test"] for one in done]
    items, checked = (sum(one.figures[key] for one in done) for key in ("items", "with_check"))
    tested, blind = (sum(test[key] for test in tests) for key in ("tested", "not_discriminating"))
    if items:
        dropped = sum(len(one.figures["checks"]["dropped"]) for one in done)
        lines.append(
            f"{items} items, {checked} with a check ({_percent(checked, items)}), {dropped} proposed checks dropped; "
            f"{tested} tried on damaged references, {blind} of them do not discriminate ({_percent(blind, tested)})"
        )
        lines.append(f"self-test: {undecided_text(sum(one.figures['undecided'] for one in done), items)}")
    lines += [
        f"  does not discriminate: {named(one)}, {of}" for one in done for of in one.figures["self_test"]["blind"]
    ]
    lines += [f"  {named(one)}, {problem}" for one in done for problem in one.problems]
    lines += [f"  no answer: {named(one)}: {one.problems[0]}" for one in failed]
    answered = len(done) + len(open_ones)
    if answered:
        cost = report.cost
        cached = f" ({cost.cached_tokens:,} of them from the endpoint's cache)" if cost.cached_tokens else ""
        lines.append(
            f"{cost.calls} answers, {cost.prompt_tokens:,} prompt tokens{cached}, {cost.completion_tokens:,} generated"
            f"; a dialogue: {cost.prompt_tokens / answered:,.0f} + {cost.completion_tokens / answered:,.0f} tokens"
            + f"; {cost_text(cost, answered)}"
        )
    if report.stopped is not None:
        lines.append(f"stopped with {report.left} left, the same command goes on with them: {report.stopped}")
    return lines


def cost_text(cost: Cost, dialogues: int) -> str:
    """In US dollars, of all of them and of one."""
    if cost.usd is None:
        return 'what it cost is not known (name the price in [prices."MODEL"])'
    return f"{cost.usd:.4f} USD, {cost.usd / dialogues:.4f} a dialogue"


def named(one: Annotated) -> str:
    """The scenario and variant of a piece of work."""
    variant = f", variant {one.work.variant}" if one.work.variant else ""
    return f"{one.work.scenario.name} ({one.work.scenario.hash[:12]}){variant}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "none"
