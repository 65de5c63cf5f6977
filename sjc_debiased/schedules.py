"""Numbers that change with the step of a run, and the range of timesteps that two of them bound."""

from __future__ import annotations

import math
from dataclasses import dataclass

N_TIMESTEPS = 1000  # of the table of noise levels that diffusion models are trained with


@dataclass(frozen=True)
class Schedule:
    """A number that runs in straight lines from point to point, and is constant before the first and after.

    It is written STEP:VALUE,STEP:VALUE,..., or as one number where it is constant. Steps are those of the
    optimisation, 0-based; none is a share or an epoch.

    >>> Schedule.parse("0:0.98,5000:0.5").value(2500)
    0.74
    >>> Schedule.parse("20").value(7)
    20.0

    Attributes:
        points: (step, value), by step, at least one.
    """

    points: tuple[tuple[int, float], ...]

    @staticmethod
    def parse(text: str) -> Schedule:
        """Return what a text means.

        Raises:
            ValueError: it is no schedule.
        """
        try:
            if ":" in text:
                pairs = [point.split(":") for point in text.split(",")]
                points = tuple((int(step), float(value)) for step, value in pairs)
            else:
                points = ((0, float(text)),)
        except ValueError:
            points = ()
        steps = [step for step, _ in points]
        rising = all(one < other for one, other in zip(steps, steps[1:]))
        if not points or not rising or steps[0] < 0 or not all(math.isfinite(v) for _, v in points):
            raise ValueError(
                "a schedule must be a number, or STEP:VALUE,STEP:VALUE,... with steps that rise from 0 on. "
                f"It is {text!r}. Write for example 980, or 0:980,5000:500."
            )
        return Schedule(points)

    def __str__(self) -> str:
        values = [str(int(value)) if value.is_integer() else repr(value) for _, value in self.points]
        if len(values) == 1:
            return values[0]
        return ",".join(f"{step}:{value}" for (step, _), value in zip(self.points, values))

    def stretched(self, factor: float) -> Schedule:
        """Return the same for a run that is `factor` times as long; of points that meet the last one counts.

        >>> str(Schedule.parse("0:700,400:700,800:350").stretched(0.5))
        '0:700,200:700,400:350'
        """
        return Schedule(tuple({round(step * factor): value for step, value in self.points}.items()))

    def value(self, step: int) -> float:
        """Return the number at a step."""
        if step < self.points[0][0]:
            return self.points[0][1]
        for (before, known), (after, following) in zip(self.points, self.points[1:]):
            if step < after:
                tau = (step - before) / (after - before)
                return (1 - tau) * known + tau * following
        return self.points[-1][1]


@dataclass(frozen=True)
class ClipSchedule:
    """Bound the direction by a value that grows linearly from `start` to `end` (D-SDS Sec. 4.1).

    `start == end` is static clipping, `None` for both is no clipping. The unit is that of `direction`:
    predicted noise. Stable Diffusion: 2 -> 8; DeepFloyd IF: 0.5 -> 2 (App. C.2). With SDS and VSD
    it bounds w(t) times the direction, as threestudio does, so the same bound is looser: w is at most 1.
    `options.forms.clip_bounds` says which bounds a run has.

    >>> ClipSchedule(2.0, 8.0).value(2500, 10_000)
    3.5
    >>> ClipSchedule(2.0, 8.0).value(12_000, 10_000)
    8.0
    """

    start: float | None
    end: float | None

    def value(self, step: int, schedule_steps: int) -> float | None:
        """Return the bound at a step: (1 - tau) start + tau end, tau = step / schedule_steps (Eq. 13).

        The schedule is as long as the run, or shorter: then the bound stays at `end`.
        """
        if self.start is None or self.end is None:
            return None
        return Schedule(((0, self.start), (schedule_steps, self.end))).value(step)


@dataclass(frozen=True)
class TimestepRange:
    """Between which timesteps a step draws its noise level: from `low` up to, but without, `high`.

    SJC's own is 10 to 970 (`denoiser.TIMESTEPS`). threestudio counts in shares of 1000 and includes its upper
    end, so its 0.02 to 0.98 is 20 to 981. An upper end that falls anneals.
    """

    low: Schedule
    high: Schedule

    @staticmethod
    def parse(low: str, high: str) -> TimestepRange:
        """Return what two texts mean, each of `Schedule.parse`.

        Raises:
            ValueError: one is no schedule, or the range is empty or outside the table at some step.
        """
        made = TimestepRange(Schedule.parse(low), Schedule.parse(high))
        for step in sorted({step for end in (made.low, made.high) for step, _ in end.points}):
            first, last = made.low.value(step), made.high.value(step)
            if not 0 <= first <= last - 1 <= N_TIMESTEPS - 1:
                raise ValueError(
                    f"timesteps must go from LOW, at least 0, to a HIGH at least 1 above it and at most "
                    f"{N_TIMESTEPS}. At step {step} they go from {first:g} to {last:g}. Write for example "
                    "20 980."
                )
        return made

    def stretched(self, factor: float) -> TimestepRange:
        """Return the same for a run that is `factor` times as long."""
        return TimestepRange(self.low.stretched(factor), self.high.stretched(factor))

    def at(self, step: int) -> tuple[int, int]:
        """Return the range at a step, rounded down: [low, high) of timesteps."""
        return int(self.low.value(step)), int(self.high.value(step))
