"""Overrides that make the exact test-bed tiny."""

TOY = (
    "data.with.tokens=6",
    "length=6",
    "schedule.with.levels=8",
    "schedule.with.rows=16",
    "sample.batch_size=4",
    "sample.steps=6",
)
