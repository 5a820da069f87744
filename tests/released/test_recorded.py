"""Decoding runs of other settings than the golden ones, recorded by loops written here anew."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import dlmkit
from dlmkit.cli.app import main
from dlmkit.exits.quota import decoded, sampler, written
from dlmkit.model import Run
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry
from dlmkit.released.opening import open_released
from dlmkit.released.verify import verify
from dlmkit.sampling.requests import Request

MORE = 12
"""Tokens that a run writes."""


def _logits(folder):
    objective = open_released(
        folder, Registry.load(third_party=False), dtype=torch.float32
    ).assembly.objective.eval()

    def of(ids):
        with torch.no_grad():
            network = objective.network
            return network.after(network.logits(objective.space.table(ids), None)).double()

    return of, objective.space.corruption.mask


def _start(folder, rows, mask):
    runs = json.loads((folder / "decoding.json").read_text())["runs"]
    prompts = [run["prompt_ids"][0] for run in runs if run["attention_mask"] is None]
    padded = next(run for run in runs if run["name"].endswith("padded"))
    prompts = (prompts[:1] + padded["prompt_ids"][:1])[:rows]
    ids = torch.tensor([prompt + [mask] * MORE for prompt in prompts])
    return prompts, ids


def _most(sure, threshold, factor):
    """How many of ``sure``, probabilities that fall, a threshold or a factor takes."""
    if threshold is not None:
        return max(1, sum(p >= threshold for p in sure))
    count = 1
    while count < len(sure) and sure[count] >= 1 - factor / (count + 2):
        count += 1
    return len(sure) if count == len(sure) - 1 else count


def _write(folder, run):
    run = {"attention_mask": None, **run}
    (folder / "decoding.json").write_text(json.dumps({"runs": [run]}))
    return run


def _llada(folder, *, rows=1, steps=6, block=12, random=False, threshold=None, factor=None):
    """LLaDA's loop: block after block, in each the most confident of what is masked so far."""
    logits, mask = _logits(folder)
    prompts, ids = _start(folder, rows, mask)
    first, taken, calls = ids.shape[1] - MORE, [], 0
    generator = torch.Generator().manual_seed(1)
    share = steps * block // MORE
    for end in range(first + block, ids.shape[1] + 1, block):
        done = 0
        while (
            done < share
            if threshold is factor is None
            else bool((ids[:, end - block : end] == mask).any())
        ):
            sure, likeliest = logits(ids).softmax(-1).max(-1)
            chance = torch.rand(ids.shape, generator=generator) if random else sure
            for row in range(rows):
                masked = [i for i in range(end) if ids[row, i] == mask]
                masked.sort(key=lambda i: -float(chance[row, i]))
                count = block // share + (done < block % share) if share else 0
                if (threshold or factor) and masked:
                    count = _most([float(sure[row, i]) for i in masked], threshold, factor)
                new = [i for i in sorted(masked[:count]) if likeliest[row, i] != mask]
                values = ([likeliest[row, new], chance[row, new]]) if new else ([], [])
                tokens, confidence = (torch.as_tensor(v).tolist() for v in values)
                ids[row, new] = likeliest[row, new]
                taken.append(
                    {"step": calls, "row": row, "positions": new, "tokens": tokens}
                    | {"confidence": confidence}
                )
            calls, done = calls + 1, done + 1
    settings = {"steps": steps, "gen_length": MORE, "block_length": block, "temperature": 0.0}
    settings |= {"remasking": "random" if random else "low_confidence", "mask_id": mask}
    settings |= {"threshold": threshold, "factor": factor}
    run = {"name": "run", "settings": settings, "prompt_ids": prompts, "network_calls": calls}
    return _write(folder, run | {"steps": taken, "final_ids": ids.tolist()})


def _compared(folder):
    found = verify(folder, Registry.load(third_party=False))
    return found.missing, {d.tensor: d.largest for d in found.differences if d.case == "run"}


RUNS = [
    {"steps": 24, "block": 4},  # steps left over in every block
    {"steps": 24, "block": 4, "rows": 2},
    {"steps": 4, "block": 6},
    {"steps": 12, "block": 6, "random": True},
    {"threshold": 0.2, "block": 6, "rows": 2},  # a row waits for the other
    {"factor": 2.0},
    {"factor": 1.2, "block": 6, "rows": 2},
    {"factor": 0.5, "block": 4},
]


@pytest.mark.parametrize("settings", RUNS, ids=lambda s: "-".join(f"{k}{v}" for k, v in s.items()))
def test_llada_in_any_settings_is_decoded_again(golden, settings):
    folder = golden("llada")
    _llada(folder, **settings)
    missing, found = _compared(folder)
    assert missing == []
    exact = {key: found[key] for key in ("final_ids", "network_calls", "steps")}
    assert exact == {"final_ids": 0.0, "network_calls": 0.0, "steps": 0.0}
    assert found.get("confidence", 0.0) < 1e-5
    assert ("confidence" in found) == (not settings.get("random"))


@pytest.mark.parametrize("settings", [{"steps": 6}, {"steps": 6, "block": 6}])
def test_a_step_that_predicts_the_mask_is_spent(golden, settings):
    folder = golden("llada")
    path = folder / "model.safetensors"
    tensors, mask = load_file(path), json.loads((folder / "meta.json").read_text())["mask_id"]
    head = tensors["model.transformer.ff_out.weight"]
    head[mask] = 1.03 * head[12]  # the token that is written most
    save_file(tensors, path)
    run = _llada(folder, **settings)
    assert any(mask in row for row in run["final_ids"])
    missing, found = _compared(folder)
    assert (missing, found["final_ids"], found["steps"]) == ([], 0.0, 0.0)


def test_another_choice_of_a_random_run_is_seen_and_its_positions_are_not_asked(golden):
    folder = golden("llada")
    run = _llada(folder, steps=12, random=True)
    run["steps"][3]["tokens"][0] += 1
    _write(folder, run)
    assert _compared(folder)[1]["steps"] == 1.0
    del run["steps"]
    _write(folder, run)
    assert _compared(folder) == (["run"], {})


def test_states_that_are_recorded_whole_are_compared_step_by_step(golden):
    folder = golden("llada")
    runs = json.loads((folder / "decoding.json").read_text())["runs"]
    run = next(run for run in runs if "states" in run) | {"name": "run"}
    _write(folder, run)
    assert _compared(folder)[1]["steps"] == 0.0
    last = next(i for i, t in enumerate(run["states"][2][0]) if t != run["states"][1][0][i])
    run["states"][1][0][last] = run["states"][2][0][last]  # a step too early
    _write(folder, run)
    assert _compared(folder)[1]["steps"] == 2.0


@pytest.mark.parametrize("settings", [{"alg": "origin"}, {"alg": "entropy", "alg_temp": 0.5}])
def test_dreams_random_positions_are_those_of_the_record(golden, settings):
    folder = golden("dream")
    logits, mask = _logits(folder)
    prompts, ids = _start(folder, 1, mask)
    order, taken = torch.randperm(MORE, generator=torch.Generator().manual_seed(2)), []
    for step, places in enumerate(order.add(len(prompts[0])).split(3)):
        ids[0, places] = logits(ids).argmax(-1)[0, places]
        taken.append(
            {
                "step": step,
                "row": 0,
                "positions": places.tolist(),
                "tokens": ids[0, places].tolist(),
            }
        )
    settings = {"steps": 4, "max_new_tokens": MORE, "mask_token_id": mask, **settings}
    run = {"name": "run", "settings": settings, "prompt_ids": prompts, "network_calls": 4}
    _write(folder, run | {"steps": taken, "final_ids": ids.tolist()})
    assert _compared(folder) == ([], {"final_ids": 0.0, "network_calls": 0.0, "steps": 0.0})


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize(
    "broken", [{"settings": {}}, {"settings": None}, {"prompt_ids": [[]]}, {"final_ids": []}]
)
def test_a_run_that_cannot_be_read_is_one_line(golden, family, broken, capsys):
    folder = golden(family)
    run = json.loads((folder / "decoding.json").read_text())["runs"][0]
    _write(folder, run | broken)
    assert main(["models", "verify", str(folder)]) == 6
    error = capsys.readouterr().err.strip()
    assert "decoding.json" in error
    assert run["name"] in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "quota"),
    [
        ("greedy_one_block", {"use": "masked:schedule"}),
        ("greedy_uneven", {"use": "masked:schedule"}),
        ("greedy_blocks", {"use": "masked:schedule"}),
        ("threshold_one_block", {"use": "masked:threshold", "with": {"threshold": 0.2}}),
        ("threshold_blocks", {"use": "masked:threshold", "with": {"threshold": 0.2}}),
    ],
)
def test_the_decoder_of_recipes_writes_the_recorded_texts(golden, name, quota):
    """By the sampling loop: not by the one that compares runs."""
    folder = golden("llada", words=True)
    runs = json.loads((folder / "decoding.json").read_text())["runs"]
    run = next(run for run in runs if run["name"] == name)
    options = {"quota": quota, "window": run["settings"]["block_length"]}
    part = sampler(Part(use="masked:confidence"), Part.model_validate(quota))
    part = Part(use=part.use, options={**part.options, **options})
    prompt = run["prompt_ids"][0]
    request = Request.prompt(0, prompt, len(prompt) + MORE)
    steps = MORE if "threshold" in name else run["settings"]["steps"]
    ids, evaluations = written(decoded(dlmkit.load(folder), part), [request], Run(0, steps, 1))
    assert list(ids[0]) == run["final_ids"][0]
    assert evaluations.tolist() == [run["network_calls"]]
