"""What other instances of a family have, and its golden folder has not."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from dlmkit.registry.lookup import Registry
from dlmkit.released.opening import converted
from dlmkit.released.verify import verify

GOLDEN = Path(__file__).parent.parent / "golden"


def _config(folder, **changed):
    path = folder / "config.json"
    content = {k: v for k, v in {**json.loads(path.read_text()), **changed}.items() if v is not ...}
    path.write_text(json.dumps(content))


def _stored_as(folder, dtype):
    path = folder / "model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)


def _expect(folder, **changed):
    path = folder / "cases.safetensors"
    save_file({**load_file(path), **changed}, path)


def _largest(folder, case, tensor):
    found = verify(folder, Registry.load(third_party=False)).differences
    return next(d.largest for d in found if (d.case, d.tensor) == (case, tensor))


def test_rates_of_rotation_are_rounded_as_in_the_files():
    from dlmkit_released.attention import rotary_rates

    stored = load_file(GOLDEN / "mdlm" / "model.safetensors")["backbone.rotary_emb.inv_freq"]
    assert torch.equal(rotary_rates(2 * len(stored), 10000.0), stored)


def test_plaids_schedule_is_as_exact_of_half_precision_as_of_single(golden):
    folder = golden("plaid")
    _stored_as(folder, torch.bfloat16)
    weights = load_file(folder / "model.safetensors")
    inner, outer = (weights[f"noise_schedule.W{n}"].double() for n in (1, 2))
    bias, t = weights["noise_schedule.b1"].double(), load_file(folder / "cases.safetensors")
    softplus = torch.nn.functional.softplus

    def shape(t):
        hidden = torch.tanh((t[:, None] - 0.5) * softplus(inner).T + bias)
        return hidden @ softplus(outer)[0]

    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    low, high = shape(ends)
    bounds = [weights[f"gamma_bounds.gamma_{n}"].double() for n in (0, 1)]
    share = (shape(t["schedule.t"]) - low) / (high - low)
    _expect(folder, **{"schedule.gamma": bounds[0] + (bounds[1] - bounds[0]) * share})
    assert _largest(folder, "schedule", "gamma") < 1e-6


def test_defaults_are_those_of_the_authors_configs(golden):
    registry = Registry.load(third_party=False)
    folder = golden("ssd-lm")
    _config(folder, layer_norm_eps=...)
    assert converted(folder, registry)[2].recipe["network"]["with"]["epsilon"] == 1e-12
    folder = golden("modernbert")
    _config(folder, local_rope_theta=None)
    network = converted(folder, registry)[2].recipe["network"]["with"]
    ropes = network["architecture"]["rope_parameters"]
    assert ropes["sliding_attention"] == ropes["full_attention"]


def test_a_row_of_padding_alone_sees_everything_alike(golden):
    folder = golden("llada")
    tensors = load_file(folder / "cases.safetensors")
    seen = tensors["padded.attention_mask"].clone()
    seen[-1] = 0
    _expect(folder, **{"padded.attention_mask": seen})
    nothing = verify(folder, Registry.load(third_party=False))
    # what every position sees alike is what it sees without positions: their mean
    objective = nothing.opened.assembly.objective
    row = objective.space.table(tensors["padded.input_ids"][-1:])
    for layer in objective.network.model.model.layers:
        layer.self_attn.q_proj.weight.data.zero_()
    with torch.no_grad():
        other = objective.network.logits(row, None)
    _expect(
        folder,
        **{"padded.logits": tensors["padded.logits"].index_copy(0, torch.tensor([2]), other)},
    )
    assert _largest(folder, "padded", "logits") <= 2e-5


def test_the_last_bits_of_a_million_do_not_count_and_those_of_an_infinity_do(golden):
    folder = golden("mdlm")
    after = load_file(folder / "cases.safetensors")["base.after"]
    far = after < -9e5
    assert bool(far.any())
    _expect(folder, **{"base.after": torch.where(far, after + 0.0625, after)})
    assert _largest(folder, "base", "after") <= 2e-5
    _expect(folder, **{"base.after": torch.where(far, after + 0.5, after)})
    assert _largest(folder, "base", "after") > 0.2
    _expect(folder, **{"base.after": torch.where(far, -torch.inf, after)})
    assert _largest(folder, "base", "after") == torch.inf
