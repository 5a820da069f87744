"""The dry run's memory and the refusal before step 1, against what torch really holds."""

import json

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from training_runs import dlmkit

from dlmkit.errors import TooLargeError
from dlmkit.recipe.assemble import assemble
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry
from dlmkit.training.loop import Learner, train
from dlmkit.training.needs import needed, refuse_too_large
from dlmkit.training.parallel import Single
from dlmkit_cdcd.network import Transformer

CPU = torch.device("cpu")


class Thirds(Single):
    """What the first of three processes knows of itself."""

    size, sharded = 3, True


def assembled(recipe, *changes):
    registry = Registry.load()
    config = load_recipe(recipe, changes, registry).config
    return assemble(config, registry), config.train


def bytes_of(objective, processes):
    return {item.what: item.bytes for item in needed(objective, processes)}


def storage(tensors):
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("frozen", [False, True])
def test_one_process_holds_exactly_what_is_said(tiny, frozen):
    assembly, config = assembled(tiny)
    objective = assembly.objective
    if frozen:
        next(objective.network.parameters()).requires_grad_(False)
    learner, gradients = Learner.begin(objective, config, Single(CPU)), {}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(
                lambda p, name=name: gradients.update({name: p.grad.nbytes})
            )
    stream = assembly.data.stream(0, config.batch_size)
    next(train(learner, stream, config, 0, Single(CPU)))
    states = learner.optimiser.state.values()
    assert bytes_of(objective, Single(CPU)) == {
        "weights": storage(objective.parameters()),
        "gradients": sum(gradients.values()),
        "AdamW": storage(state[key] for state in states for key in ("exp_avg", "exp_avg_sq")),
        "EMA": storage(learner.ema.averages.values()),
    }
    assert (sum(gradients.values()) < storage(objective.parameters())) == frozen


@pytest.fixture
def three_processes():
    dist.init_process_group("fake", rank=0, world_size=3, store=FakeStore())
    yield init_device_mesh("cpu", (3,))
    dist.destroy_process_group()


def test_the_first_process_holds_the_largest_part_of_every_weight(tiny, three_processes):
    objective = assembled(tiny)[0].objective
    items, whole = bytes_of(objective, Thirds(CPU)), storage(objective.parameters())
    for unit in objective.network.shard_units():
        fully_shard(unit, mesh=three_processes)
    fully_shard(objective, mesh=three_processes)
    held = storage(parameter.to_local() for parameter in objective.parameters())
    assert whole / 3 < held < whole / 2
    assert items == {
        "weights": held, "gradients": held, "AdamW": 2 * held, "EMA": held, "sampled copy": whole,
    }  # fmt: skip


def test_beside_an_accelerator_the_sampled_copy_lies_in_the_hosts_memory(tiny):
    objective = assembled(tiny)[0].objective
    assert "sampled copy" not in bytes_of(objective, Thirds(torch.device("cuda")))


def test_a_dry_run_says_the_same_and_computes_nothing(tiny, capsys, monkeypatch):
    monkeypatch.setattr(Transformer, "forward", lambda *_: pytest.fail("a pass was done"))
    assert dlmkit("train", tiny, "--dry-run", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    said = {item["what"]: item["bytes"] for item in report["memory"]}
    assert said == bytes_of(assembled(tiny)[0].objective, Single(CPU))
    assert report["memory_bytes"] == sum(said.values())


def test_a_dry_run_refuses_with_arithmetic_what_a_run_would(tiny, capsys):
    sizes = [word for size in ("length=1e6", "train.batch_size=1e3") for word in ("--set", size)]
    assert dlmkit("train", tiny, "--dry-run", *sizes) == 3
    assert "activations of a pass are at least 1,000 rows x 1,000,000" in capsys.readouterr().err


def kept_by_a_pass(assembly, config):
    """Bytes of all tensors that one pass keeps for its gradients, the weights' apart."""
    learner = Learner.begin(assembly.objective, config, Single(CPU))
    kept = {p.untyped_storage().data_ptr(): None for p in assembly.objective.parameters()}
    stream = assembly.data.stream(0, config.batch_size)

    def pack(tensor):
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        next(train(learner, stream, config, 0, Single(CPU)))
    return sum(t.untyped_storage().nbytes() for t in kept.values() if t is not None)


BLOCKS = "network.with.blocks=4"


@pytest.mark.parametrize(
    ("changes", "blocks"), [((), 4), (("train.activation_checkpointing=true",), 1)]
)
def test_what_is_refused_for_its_passes_could_never_run(tiny, monkeypatch, changes, blocks):
    """The bound: 64 numbers, the width of a block's hidden layer, by block and position."""
    assembly, config = assembled(tiny, BLOCKS, *changes)
    bound = blocks * 64 * 4 * config.batch_size * assembly.config.length
    state = sum(item.bytes for item in needed(assembly.objective, Single(CPU)))
    assert bound < kept_by_a_pass(*assembled(tiny, BLOCKS))
    monkeypatch.setattr("dlmkit.training.needs.free", lambda: max(bound, state))
    refuse_too_large(assembly, config, Single(CPU))
    large = config.model_copy(update={"batch_size": 1000 * config.batch_size})
    monkeypatch.setattr("dlmkit.training.needs.free", lambda: 1000 * bound)
    refuse_too_large(assembly, large, Single(CPU))
    monkeypatch.setattr("dlmkit.training.needs.free", lambda: 1000 * bound - 1)
    with pytest.raises(TooLargeError, match=r"a pass are at least 6,000 rows x 32 positions"):
        refuse_too_large(assembly, large, Single(CPU))
