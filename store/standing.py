"""Which verdicts stand, and which of them and of the rewards count: what every reader's SQL shares.

A verdict counts once for each (trajectory, turn, item): a person's newest verdict if there is one, otherwise the newest
(invariant 2). What was taken back is left out.
"""

from sqlalchemy import ColumnElement, Subquery, case, exists, func, literal_column, select
from sqlalchemy.orm import aliased

from store.schema import RewardRow, TrajectoryRow, VerdictRow, WithdrawalRow
from store.vocabulary import Outcome, VerdictSource


def is_person_s(row: type[VerdictRow] = VerdictRow) -> ColumnElement[bool]:
    """A person said it; in the words of the indexes of what people said."""
    return row.source == literal_column(f"'{VerdictSource.HUMAN.value}'")


def stands(row: type[VerdictRow] = VerdictRow) -> ColumnElement[bool]:
    """Nobody took this verdict back."""
    return row.id.not_in(select(WithdrawalRow.verdict_id))


def has_verdict() -> ColumnElement[bool]:
    """Of TrajectoryRow: a verdict on it counts."""
    return exists().where(VerdictRow.trajectory_id == TrajectoryRow.id, VerdictRow.counts, stands())


def winning_verdicts(*conditions: ColumnElement[bool]) -> Subquery:
    """Subquery of the verdicts that count: one row for each (trajectory, turn, item)."""
    by_person = case((VerdictRow.source == VerdictSource.HUMAN.value, 1), else_=0)
    ranked = (
        select(
            VerdictRow.id,
            VerdictRow.trajectory_id,
            VerdictRow.item_id,
            VerdictRow.outcome,
            func.row_number()
            .over(
                partition_by=(VerdictRow.trajectory_id, VerdictRow.turn_index, VerdictRow.item_id),
                order_by=(by_person.desc(), VerdictRow.id.desc()),
            )
            .label("place"),
        )
        .where(VerdictRow.counts, stands(), *conditions)
        .subquery()
    )
    return (
        select(ranked.c.id, ranked.c.trajectory_id, ranked.c.item_id, ranked.c.outcome)
        .where(ranked.c.place == 1)
        .subquery("winning")
    )


def outcome_sums(outcome: ColumnElement[str]) -> tuple[ColumnElement[int], ...]:
    """Columns passed, failed, unscored for a grouped query."""
    order = (Outcome.PASS, Outcome.FAIL, Outcome.UNSCORED)
    return tuple(func.sum(case((outcome == o.value, 1), else_=0)) for o in order)


def newest_reward() -> ColumnElement[int]:
    """The id of the trajectory's reward that counts, as a scalar subquery of TrajectoryRow."""
    later = aliased(RewardRow)
    return (
        select(func.max(later.id)).where(later.trajectory_id == TrajectoryRow.id).correlate(TrajectoryRow)
    ).scalar_subquery()
