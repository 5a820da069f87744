"""Keys and values that are kept between steps: prefix, dual, delayed, and exact with a decoder."""

import pytest
import torch

import dlmkit
from dlmkit.core.cache import Window
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.errors import RecipeError
from dlmkit.model import Run

DECODER = "sampler={use: masked:decoder, with: {order: {use: masked:confidence}, window: 4}}"
ALIGNED = DECODER.replace("window: 4", "window: 4, window_from: row")
THRESHOLD = ALIGNED.replace("{order:", "{quota: {use: masked:threshold}, order:")


@pytest.fixture
def opened(golden):
    """The model of a golden folder with a decoder, whose texts end nowhere."""

    def load(family, *overrides):
        model = dlmkit.load(golden(family, words=True)).with_("sample.stop=[]")
        return model.with_(DECODER, *overrides)

    return load


def texts(model, requests, steps=7, batch=2):
    return [(s.row, s.ids) for s in model.run(requests, Run(3, steps, batch, 16))]


def asked(model):
    requests = model.requests(2, ["w5 w6 w7 w8 w9", "w3"], length=[16, 12])
    return requests + model.requests(1, infill="___ w8 w9 ___", length=15, offset=4)


def test_windows_are_counted_from_the_text_or_from_the_row():
    generated = torch.tensor([[False, False, False, True, True, False]])
    masked = torch.tensor([[False, False, False, False, True, False]])
    assert Window(2, False).numbers(generated).tolist() == [[-2, -1, -1, 0, 0, 1]]
    assert Window(2, True).numbers(generated).tolist() == [[0, 0, 1, 1, 2, 2]]
    assert Window(2, False).now(masked, generated)[0].nonzero()[:, 0].tolist() == [3, 4]
    assert not Window(2, True).now(masked & False, generated).any()


@pytest.mark.parametrize(
    ("family", "cache"), [("llada", "prefix"), ("dream", "dual"), ("mdlm", "delayed")]
)
def test_slots_and_refill_change_no_text(opened, family, cache):
    model = opened(family, f"sample.cache={cache}", "sample.refresh=3")
    whole = texts(model, asked(model), batch=5)
    assert texts(model, asked(model), batch=2) == whole
    assert len({ids for _, ids in whole}) == 5


def test_on_an_accelerator_too_a_text_is_the_same_beside_others(golden, accelerator):
    folder, words = golden("llada", words=True), ["sample.stop=[]", DECODER, "sample.cache=dual"]
    here = dlmkit.load(folder, *words)
    there = dlmkit.load(folder, *words, device=accelerator)
    assert texts(there, asked(there)) == texts(here, asked(here))


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_what_is_always_computed_anew_is_no_cache(opened, family):
    model = opened(family)
    plain = texts(model, asked(model))
    assert texts(model.with_("sample.cache=delayed", "sample.refresh=1"), asked(model)) == plain
    free, wide = model.requests(3, length=12), model.with_("sampler.with.window=12")
    plain = texts(wide, free)
    for cache in ("prefix", "dual"):
        assert texts(wide.with_(f"sample.cache={cache}"), free) == plain


@pytest.mark.parametrize("family", ["llada", "dream", "mdlm"])
def test_what_is_kept_is_of_the_step_that_computed_it(opened, family):
    model = opened(family, "sample.cache=dual")
    denoise, network = model.parts.denoise, model.assembly.network
    steps = list(model.stream(model.requests(1, "w5 w6", length=12), Run(0, 10, 1, 12)))
    first, second = steps[0].origin, steps[1].origin
    first[:, :2] = second[:, :2] = torch.tensor([5, 6])
    every = torch.arange(12)[None]
    given = every < 2
    known = Conditioning.of(denoise.table(first), given, given | True)
    memory = network.extend(denoise.table(first), known, every, network.memory(1, 12))[1]
    at = torch.arange(2 - network.shift, 6)[None]  # a shifted window takes the position before it
    query, _ = network.extend(denoise.table(second.gather(1, at)), known, at, memory)
    masked = second[0, 2:6] == denoise.mask
    expected = denoise.possible(query)[0, -4:][masked]
    torch.testing.assert_close(steps[1].prediction.query[0, 2:6][masked], expected)
    half = Level(torch.tensor([0.5]), torch.tensor([0.5]))
    whole = network(denoise.table(second), half, known, denoise.table(second))
    assert not torch.allclose(denoise.possible(whole)[0, 2:6][masked], expected, atol=1e-6)


@pytest.mark.parametrize(("cache", "size"), [("prefix", 10), ("dual", 4)])
def test_a_step_within_a_window_computes_no_more_than_it_needs(opened, cache, size, monkeypatch):
    model, sizes = opened("llada", f"sample.cache={cache}"), []
    network = model.assembly.network
    extend = network.extend
    monkeypatch.setattr(
        network, "extend", lambda *words: sizes.append(words[2].shape[1]) or extend(*words)
    )
    model.run(model.requests(1, "w5 w6", length=12), Run(0, 12, 1, 12))
    assert sizes[:3] == [12, size, size]
    assert sizes.count(12) == 3  # once a window


@pytest.mark.parametrize(("sampler", "steps"), [(ALIGNED, 7), (THRESHOLD, 5)])
def test_a_decoder_goes_with_finished_blocks(opened, sampler, steps):
    model = opened("sdar", sampler)
    plain = texts(model, asked(model), steps)
    assert texts(model.with_("sample.cache=exact"), asked(model), steps) == plain


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["sampler.with.window=null", "sample.cache=prefix"], "window after window"),
        (["sample.cache=dual", "statistic=[{use: entropy}]"], "read whole rows"),
        (["sample.cache=prefix", "sampler.with.remask.use=remdm"], "window after window"),
    ],
)
def test_what_cannot_be_kept_is_refused(opened, overrides, why):
    with pytest.raises(RecipeError, match=why):
        opened("llada", *overrides)


@pytest.mark.parametrize("level", [True, False])
def test_a_network_that_reads_the_level_keeps_nothing(level):
    recipe = {
        "length": 16,
        "data": "grammar:grammar",
        "schedule": "mdlm:log-linear",
        "space": {"use": "mdlm:tokens", "with": {"dim": 8}},
        "network": {"use": "cdcd:transformer", "with": {"width": 8, "heads": 2, "level": level}},
        "masking": "cdcd:none",
        "objective": "mdlm:nelbo",
        "sampler": "mdlm:unmasking",
        "grid": "samplers:linear",
        "sample": {"cache": "delayed", "refresh": 1},
        "train": {"steps": 1},
    }
    if level:
        with pytest.raises(RecipeError, match="reads no noise level"):
            dlmkit.compose(**recipe)
        return
    model = dlmkit.compose(**recipe)
    torch.nn.init.normal_(model.assembly.network.query.weight)
    assert texts(model, model.requests(3), 5) == texts(
        model.with_("sample.cache=none"), model.requests(3), 5
    )


def test_remasking_by_what_is_not_computed_is_refused(opened):
    model = opened("llada", "sample.cache=delayed", "sampler.with.remask.use=planned")
    with pytest.raises(RecipeError, match=r"not computed with sample\.cache"):
        texts(model, asked(model))
