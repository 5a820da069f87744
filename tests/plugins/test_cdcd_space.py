"""The normalised space: where its table starts, whether it is trained, and what a run keeps."""

import shutil

import pytest
import torch

import dlmkit
from dlmkit.cli.app import main
from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.options import Normalised
from dlmkit.core.points import NormalisedSpace
from dlmkit.errors import DataError
from dlmkit.model import load_model
from dlmkit.plugin import Part
from dlmkit.recipe.assemble import assemble
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry

SMALL = [
    "space.with.dim=16",
    "network.with.width=16",
    "network.with.heads=2",
    "network.with.blocks=1",
    "train.steps=6",
    "train.batch_size=4",
    "train.warmup_steps=0",
    "train.checkpoint_every=3",
    "train.validation_rows=4",
    "train.threads=1",
    "sample.steps=2",
    "sample.count=1",
    "metric=[]",
]
COUNTS = ["space.with.start=counts", "space.with.counts.tokens=20000"]
FIXED = [*COUNTS, "space.with.trained=false"]


@pytest.mark.parametrize(("vocabulary", "dim"), [(3, 1), (64, 16), (4099, 100)])
def test_rows_that_are_looked_up_are_those_of_the_table_bit_for_bit(vocabulary, dim):
    """And cost no table, which logits normalise in the same step."""
    space = NormalisedSpace(Normalised(dim=dim), BuildContext(length=5, vocab_size=vocabulary))
    ids = torch.randint(vocabulary, (2, 5), generator=torch.Generator().manual_seed(0))
    expected = space.table()[ids]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(space, "table", None)
        assert torch.equal(space.embed(ids), expected)


@pytest.fixture(scope="module")
def registry():
    return Registry.load(third_party=False)


def config(registry, *overrides):
    return load_recipe("ddlm_grammar", [*SMALL, *overrides], registry).config


def weights(assembly):
    return {k: v.detach().clone() for k, v in assembly.objective.state_dict().items()}


def different(a, b):
    return {name for name in a if not torch.equal(a[name], b[name])}


def test_the_table_starts_at_random_unless_the_recipe_says_otherwise(registry):
    space = assemble(config(registry), registry).space
    torch.manual_seed(0)
    assert torch.equal(space.weight, torch.randn(space.weight.shape) * 1e-3)


def test_a_start_from_counts_changes_the_table_and_nothing_else(registry):
    plain = weights(assemble(config(registry), registry))
    counted = weights(assemble(config(registry, *COUNTS), registry))
    assert different(plain, counted) == {"space.weight"}
    sizes = [w["space.weight"].norm(dim=1).square().mean().sqrt() for w in (plain, counted)]
    assert sizes[1].item() == pytest.approx(sizes[0].item(), rel=0.05)


def test_the_seed_moves_the_random_part_alone(registry):
    tables = [
        assemble(config(registry, *COUNTS, f"seed={seed}"), registry).space.table().detach()
        for seed in (0, 1)
    ]
    cosine = (tables[0] * tables[1]).sum(dim=1) / 16
    known = slice(2, None)  # all but padding and the unknown token
    assert cosine[known].min() > 0.9
    assert cosine[known].max() < 0.9999


def test_gradients_reach_a_table_that_starts_from_counts(registry):
    space = assemble(config(registry, *COUNTS), registry).space
    space.logits(torch.randn(2, 3, 16)).softmax(dim=-1).square().sum().backward()
    assert (space.weight.grad != 0).any(dim=1).all()


@pytest.mark.parametrize("start", [[], COUNTS], ids=["random", "counts"])
def test_a_table_that_is_not_trained_stays_as_it_starts(registry, start):
    recipe = config(registry, *start, "space.with.trained=false")
    before = weights(assemble(recipe, registry))
    model = dlmkit.model.Model(None, assemble(recipe, registry), None)
    assert "space.weight" not in dict(model.assembly.objective.named_parameters())
    list(model.train())
    after = weights(model.assembly)
    assert torch.equal(after["space.weight"], before["space.weight"])
    assert len(different(before, after)) > 5


def test_composed_models_start_from_counts_and_train_on(registry):
    recipe = config(registry, *COUNTS).model_dump(mode="json", by_alias=True)
    model = dlmkit.compose(**recipe)
    first = weights(model.assembly)
    assert torch.equal(
        first["space.weight"], assemble(config(registry, *COUNTS), registry).space.weight
    )
    assert len(list(model.train())) == 6
    assert "space.weight" in different(first, weights(model.assembly))
    assert len(model.sample(n=1, steps=2)) == 1


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A recipe of one's own text, whose file a test may take away."""
    folder = tmp_path_factory.mktemp("own")
    words = "the old boat and the new boat lay by the quay while a man or a boy sat on the wall"
    lines = [" ".join(words.split()[i % 7 : 8 + i % 9]) for i in range(400)]
    (folder / "own.txt").write_text("\n".join(lines))
    (folder / "own.yaml").write_text(
        "extends: ddlm_grammar\nlength: 16\n"
        f"data: {{use: text:text, with: {{paths: [{folder / 'own.txt'}], "
        "document: line, tokenizer: {kind: pieces, size: 60}}}\n"
    )
    return folder


@pytest.mark.parametrize("more", [COUNTS, FIXED], ids=["trained", "fixed"])
def test_after_the_start_a_run_needs_no_counts(text, tmp_path, monkeypatch, more, capsys):
    """Resuming, loading, sampling and exporting read weights; the first two equal one straight run.

    Loading and exporting work without the text.
    """
    sets = [word for change in (*SMALL, *more) for word in ("--set", change)]
    recipe = str(text / "own.yaml")
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert main(["train", recipe, "--out", str(straight), *sets]) == 0
    stop = ["--set", "train.stop_after=3"]
    assert main(["train", recipe, "--out", str(stopped), *sets, *stop]) == 0
    monkeypatch.setattr("dlmkit.core.points.start_from_counts", _refuse)
    assert main(["train", recipe, "--out", str(stopped), *sets, "--resume", "auto"]) == 0
    models = [load_model(run) for run in (straight, stopped)]
    assert not different(*(weights(model.assembly) for model in models))

    own = tmp_path / "kept.txt"
    shutil.move(text / "own.txt", own)
    try:
        folder = tmp_path / "exported"
        assert main(["export", str(straight), str(folder), "--license", "cc0-1.0"]) == 0
        again = load_model(folder)
        assert not different(weights(again.assembly), weights(models[0].assembly))
        assert again.sample(n=1, steps=2)[0].text == models[0].sample(n=1, steps=2)[0].text
    finally:
        shutil.move(own, text / "own.txt")
    capsys.readouterr()


@pytest.mark.parametrize(("mode", "rows"), [("stream", "packed"), ("prepared", "padded")])
def test_text_in_shards_is_counted_by_a_stream_of_its_own(
    registry, own_cache, tmp_path, write_shards, texts, mode, rows
):
    """Padding gets no neighbours, and training reads what it would have read."""
    write_shards(tmp_path / "shards", texts(300), "train", 2)
    sets = (f"data.with.path={tmp_path / 'shards'}", f"data.with.mode={mode}", "length=24",
            f"data.with.rows={rows}", "data.with.tokenizer.size=300")  # fmt: skip
    recipe = load_recipe("ddlm_c4", [*SMALL, *COUNTS, *sets], registry).config
    counted, plain = assemble(recipe, registry), assemble(recipe, registry, start=False)
    assert different(weights(counted), weights(plain)) == {"space.weight"}
    changed = (counted.space.weight != plain.space.weight).any(dim=1)
    assert not changed[counted.tokenizer.pad_id]
    assert 30 < changed.sum() < 300
    assert changed[counted.tokenizer.separator_id]
    assert not different(weights(assemble(recipe, registry)), weights(counted))
    slots = torch.arange(4)
    batches = [a.data.stream(0, 4).read(0, slots).ids for a in (counted, plain)]
    assert torch.equal(*batches)


def _refuse(*_):
    raise AssertionError("the text was counted again")


def test_a_dry_run_counts_nothing(registry, monkeypatch, capsys):
    monkeypatch.setattr("dlmkit.core.points.start_from_counts", _refuse)
    sets = [word for change in (*SMALL, *COUNTS) for word in ("--set", change)]
    assert main(["train", "ddlm_grammar", "--dry-run", *sets]) == 0
    capsys.readouterr()


def test_text_that_gives_no_counts_ends_a_run_with_the_exit_code_of_data(
    registry, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(Data, "excerpt", lambda self, tokens, rows=512: iter(()))
    sets = [word for change in (*SMALL, *COUNTS) for word in ("--set", change)]
    code = main(["train", "ddlm_grammar", "--out", str(tmp_path / "run"), *sets])
    assert code == DataError.exit_code
    said = capsys.readouterr().err
    assert "the toy grammar" in said
    assert "embeddings cannot start from counts" in said


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["space.with.start=count"], "expected 'random' or 'counts', got 'count', did you mean"),
        (["space.with.counts={}"], "counts goes with start: counts, and only with it"),
        ([*COUNTS, "space.with.counts.windw=3"], "windw: unknown key, did you mean 'window'?"),
        ([*COUNTS, "space.with.counts.window=0"], "window: expected greater than 0, got 0"),
        ([*COUNTS, "space.with.counts.smoothing=1.5"], "expected less than or equal to 1, got 1.5"),
    ],
)
def test_options_that_do_not_fit_are_refused_where_they_stand(registry, overrides, said):
    with pytest.raises(dlmkit.errors.RecipeError) as refused:
        config(registry, *overrides)
    assert said in str(refused.value)


def test_a_resolved_recipe_shows_how_neighbours_are_counted(registry):
    def options(*overrides):
        return config(registry, *overrides).space.options

    assert options()["counts"] is None
    shown = {"window": 5, "tokens": 2_000_000, "smoothing": 0.75}
    assert options("space.with.start=counts")["counts"] == shown
    assert isinstance(config(registry).space, Part)
