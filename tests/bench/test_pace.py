"""What the bench says of how long it takes, by a clock of our own."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from dlmkit.bench.pace import Pace, spelt


def test_it_says_once_how_long_the_rest_takes():
    now, said = [0.0], []
    bar = Progress(console=Console(file=io.StringIO()), disable=True)
    pace = Pace(said.append, bar, lambda: now[0])
    pace.expect(100)
    now[0] = 30.0
    pace.done(10)
    assert said == ["about 4 minutes left at this pace"]
    pace.expect(20)
    pace.done(10)
    assert len(said) == 1
    (task,) = bar.tasks
    assert (task.completed, task.total) == (20, 20)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(2.2, "2 seconds"), (99, "99 seconds"), (150, "2 minutes"), (9000, "2.5 hours")],
)
def test_seconds_are_spelt_in_their_unit(seconds, words):
    assert spelt(seconds) == words


def test_a_bench_does_all_the_work_that_its_bar_ends_at(toy, monkeypatch):
    """The rows of exits are known only once their case has been recorded."""
    from dlmkit.bench import pace
    from dlmkit.bench.cases import Lists
    from dlmkit.bench.plan import SamplerPlan
    from dlmkit.bench.sampler import run

    paces = []

    class Kept(Pace):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            paces.append(self)

    monkeypatch.setattr(pace, "Pace", Kept)
    lists = Lists(["euler"], ["warped"], [4], [4], ["none"], ["fp32"])
    said = []
    plan = SamplerPlan("toy", lists, texts=8, calibration=8, rounds=2, rules=("fixed:step=tuned",))
    run(toy, plan, said.append)
    (kept,) = paces
    (task,) = kept._bar.tasks
    assert task.completed == task.total == 4 * 16 + 2 * 3 * 4 * 8
    assert sum("left at this pace" in line for line in said) == 1
