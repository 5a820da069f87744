"""From a recipe to objects: weights from the seed alone, parts in order, and sampling's parts."""

import pytest
import torch

from dlmkit.errors import DataError, RecipeError, UsageError
from dlmkit.plugin import Part
from dlmkit.recipe.assemble import assemble, assemble_sampling
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry

SMALL = [
    "space.with.dim=8",
    "network.with.width=16",
    "network.with.heads=2",
    "network.with.blocks=1",
]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load(third_party=False)


@pytest.fixture(scope="module")
def config(registry):
    return load_recipe("ddlm_grammar", SMALL, registry).config


@pytest.fixture(scope="module")
def assembly(config, registry):
    return assemble(config, registry)


def weights(module):
    return torch.cat([p.detach().flatten().double() for p in module.parameters()])


def test_the_objective_holds_space_network_and_schedule(assembly):
    objective = assembly.objective
    assert objective.space is assembly.space
    assert objective.network is assembly.network
    assert objective.schedule is assembly.schedule
    assert set(objective.modules()) >= {assembly.space, assembly.network, assembly.schedule}
    assert assembly.context.vocab_size == assembly.tokenizer.vocab_size


def test_initial_weights_are_a_function_of_the_seed(config, registry, assembly):
    torch.manual_seed(123)
    again = assemble(config, registry)
    other = assemble(config.model_copy(update={"seed": config.seed + 1}), registry)
    assert torch.equal(weights(again.objective), weights(assembly.objective))
    assert not torch.equal(weights(other.objective), weights(assembly.objective))


def test_without_data_the_saved_tokenizer_gives_the_vocabulary(
    config, registry, assembly, tmp_path
):
    assembly.tokenizer.save(tmp_path)
    bare = assemble(config, registry, folder=tmp_path, with_data=False)
    assert bare.data is None
    assert bare.tokenizer.pieces() == assembly.tokenizer.pieces()
    assert torch.equal(weights(bare.objective), weights(assembly.objective))


def test_without_data_and_tokenizer_there_is_no_model(config, registry, tmp_path):
    with pytest.raises(DataError, match=r"holds no tokenizer\.json"):
        assemble(config, registry, folder=tmp_path, with_data=False)
    with pytest.raises(UsageError, match="needs the folder"):
        assemble(config, registry, with_data=False)


def test_parameters_are_drawn_in_the_dtype_asked_for(config, registry):
    double = assemble(config, registry, dtype=torch.float64)
    assert {p.dtype for p in double.objective.parameters()} == {torch.float64}
    assert torch.get_default_dtype() == torch.float32


def test_sampling_gets_the_statistics_that_its_exit_needs(assembly):
    exits = Part(use="patience", options={"rule": {"use": "entropy", "with": {"threshold": 0.1}}})
    config = assembly.config.model_copy(update={"exit": exits, "statistic": [Part(use="kl")]})
    parts = assemble_sampling(assembly, config)
    assert set(parts.statistics) == {"kl", "entropy"}
    assert parts.exit is not None
    assert parts.space is assembly.space


def test_two_statistics_of_one_name_are_refused(assembly):
    config = assembly.config.model_copy(
        update={"statistic": [Part(use="kl"), Part(use="samplers:kl")]}
    )
    with pytest.raises(RecipeError, match="two statistics go by the name 'kl'"):
        assemble_sampling(assembly, config)


def test_guidance_is_built_in_the_order_of_the_recipe(assembly):
    temperature = Part(use="score-temperature", options={"temperature": 0.9})
    config = assembly.config.model_copy(update={"guidance": [temperature, temperature]})
    assert len(assemble_sampling(assembly, config).guidance) == 2


PATIENT = {"use": "patience", "with": {"rule": {"use": "jeffreys", "with": {"threshold": 1e-9}}}}
DEEP = {
    "use": "any",
    "with": {
        "rules": [
            {"use": "jeffreys", "with": {"threshold": 0.5}},
            {"use": "after", "with": {"step": 3, "rule": PATIENT}},
        ]
    },
}


def sampled(assembly, exit=None, **sample):
    return assembly.config.model_copy(
        update={
            "exit": None if exit is None else Part(use=exit["use"], options=exit["with"]),
            "sample": assembly.config.sample.model_copy(update=sample),
        }
    )


def test_a_threshold_below_the_noise_is_refused_however_deep_it_lies(assembly):
    with pytest.raises(RecipeError) as refused:
        assemble_sampling(assembly, sampled(assembly, DEEP))
    assert str(refused.value) == (
        "exit: a threshold of 1e-09 on jeffreys lies below its noise floor of 2e-09 in float32, "
        "where rounding would decide when a text ends; take 2e-09 or more"
    )


def test_floors_are_those_of_the_precision_sampled_in(assembly):
    rule = {"use": "entropy", "with": {"threshold": 1e-3}}
    assert assemble_sampling(assembly, sampled(assembly, rule)).exit is not None
    with pytest.raises(RecipeError, match=r"floor of 0.02 in bfloat16.*fp32, whose floor is 1e-05"):
        assemble_sampling(assembly, sampled(assembly, rule, precision="bf16"))


def test_cuda_graphs_are_refused_on_the_cpu(assembly):
    with pytest.raises(RecipeError, match=r"sample\.cuda_graphs: true, and the device is cpu"):
        assemble_sampling(assembly, sampled(assembly, cuda_graphs=True))


def test_the_recipe_says_how_the_network_runs(assembly):
    chosen = assemble_sampling(assembly, sampled(assembly, precision="bf16")).inference
    assert (chosen.dtype, chosen.int8, chosen.compile) == (torch.bfloat16, False, False)
    assert assemble_sampling(assembly, sampled(assembly, int8=True)).inference.int8


@pytest.mark.parametrize("other", ["precision=bf16", "compile=true"])
def test_int8_goes_alone(registry, other):
    with pytest.raises(RecipeError, match="int8 goes with precision: fp32 and without compile"):
        load_recipe("ddlm_grammar", ["sample.int8=true", f"sample.{other}"], registry)
