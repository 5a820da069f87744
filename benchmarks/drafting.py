"""What the mask slots of tune:drafting are worth: acceptance, tokens per pass, seconds, the law.

    python benchmarks/drafting.py MODEL [--rows 16] [--files TEXT ...] [--new 48] [--set KEY=VALUE]

On held-out rows of the model's text, or on rows cut from files: nats per token of the decoder
itself (place 1) and of slots (places 2, ...), each given the token before it if it is to know that,
and the chance that a draft is accepted, the sum over tokens of min(p, q). Then texts are drawn
behind the first 16 tokens of each row, by tune:verifying and by the decoder alone, a token per
pass: passes are counted, and the nats per token of both kinds of texts under the decoder, whose
law they must share, go through two two-sample tests. --timed compares seconds, in turns.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import torch
from scipy.stats import ks_2samp, mannwhitneyu
from torch import Tensor
from transformers.cache_utils import DynamicCache

from dlmkit.core.tokens import categorical
from dlmkit.exact.intervals import bootstrap_mean
from dlmkit.model import Model, Run, load_model
from dlmkit.sampling.requests import Request
from dlmkit_hf import lora
from dlmkit_tune.drafting import Drafting

BEGUN = 16


def drafting(model: Model) -> Drafting:
    """What the model was trained by."""
    objective = model.assembly.objective
    assert isinstance(objective, Drafting)
    return objective


def held_out(model: Model, rows: int, length: int, file: Path | None) -> Tensor:
    """Ids (B, L) of full rows."""
    if file is None:
        batch = model.data.validation(rows)
        return batch.ids[batch.attend.all(dim=1), :length]
    ids = model.assembly.tokenizer.encode(file.read_text(encoding="utf-8"))
    return torch.tensor(ids[: len(ids) // length * length]).view(-1, length)[:rows]


@torch.no_grad()
def by_place(objective: Drafting, ids: Tensor) -> dict[str, object]:
    """Nats and acceptance at each place, over all blocks that lie in a row whole."""
    slots, length = objective.network.slots, ids.shape[1]
    nats, share = torch.zeros(len(ids), slots + 1), torch.zeros(len(ids), slots)
    starts = torch.arange(1, length - slots)
    for index, row in enumerate(ids.split(1)):
        tokens, drafted = (said.double().log_softmax(-1)[0] for said in objective.said(row))
        target = row[0]
        nats[index, 0] = -tokens[starts - 1, target[starts]].mean()
        for slot in range(slots):
            p, q = tokens[starts + slot], drafted[starts, slot]
            nats[index, slot + 1] = -q[range(len(starts)), target[starts + slot + 1]].mean()
            share[index, slot] = torch.minimum(p, q).exp().sum(dim=-1).mean()
    figures = {
        "rows": len(ids),
        "nats": nats.mean(dim=0).tolist(),
        "accepted": share.mean(dim=0).tolist(),
        "accepted_interval": [bootstrap_mean(values) for values in share.T],
    }
    print(f"{len(ids)} rows of {length}; nats per token at place", end=" ")
    print(*(f"{place}: {n:.3f}" for place, n in enumerate(nats.mean(dim=0).tolist(), 1)), sep=", ")
    for place, values in enumerate(share.T, 2):
        low, high = bootstrap_mean(values)
        print(f"accepted at place {place}: {values.mean():.3f} [{low:.3f}, {high:.3f}]")
    return figures


def verified(model: Model, ids: Tensor, new: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows (B, 16 + new) by tune:verifying, and the passes of each."""
    begun = ids[:, :BEGUN].tolist()
    requests = [Request.prompt(row, prompt, BEGUN + new) for row, prompt in enumerate(begun)]
    samples = model.run(requests, Run(seed, new, len(requests)))
    passes = torch.tensor([float(sample.evaluations) for sample in samples])
    return torch.tensor([sample.ids for sample in samples]), passes


@torch.no_grad()
def plain(model: Model, ids: Tensor, new: int, seed: int) -> Tensor:
    """Rows (B, 16 + new) by the decoder alone, with transformers' cache."""
    objective, cache = drafting(model), DynamicCache()
    network, table, denoise = objective.network, objective.space.table, objective.denoise()
    generator = torch.Generator().manual_seed(seed)
    row = read = ids[:, :BEGUN]
    with lora.acting_from(network.model, None):
        for _ in range(new):
            out = network.model(
                inputs_embeds=table(read) * network.scale, past_key_values=cache, use_cache=True
            ).logits[:, -1]
            log_p = denoise.possible(out).double().log_softmax(-1)
            u = torch.rand(log_p.shape, generator=generator, dtype=torch.float64)
            read = categorical(log_p, u)[:, None]
            row = torch.cat((row, read), dim=1)
    return row


@torch.no_grad()
def own_nats(model: Model, ids: Tensor) -> Tensor:
    """Nats per token of what stands behind the first 16, by the decoder, for each row."""
    network, table = drafting(model).network, drafting(model).space.table
    rows = []
    for row in ids.split(1):
        log_p = network.logits(table(row), None).double().log_softmax(-1)[:, BEGUN - 1 : -1]
        rows.append(-log_p.gather(-1, row[:, BEGUN:, None]).mean())
    return torch.stack(rows)


def drawn(model: Model, ids: Tensor, new: int) -> dict[str, object]:
    """Tokens written per pass, and texts of both kinds compared."""
    texts, passes = verified(model, ids, new, 0)
    alone = plain(model, ids, new, 0)
    per_pass, spent = new / float(passes.mean()), bootstrap_mean(passes)
    low, high = new / spent.high, new / spent.low
    print(
        f"{len(ids)} texts of {new} tokens in {int(passes.sum())} passes: {per_pass:.3f} tokens "
        f"per pass [{low:.3f}, {high:.3f}]"
    )
    ours, theirs = own_nats(model, texts), own_nats(model, alone)
    ks, rank = ks_2samp(ours, theirs).pvalue, mannwhitneyu(ours, theirs).pvalue
    print(
        f"nats per token under the decoder: {ours.mean():.3f} verified, {theirs.mean():.3f} by it "
        f"alone; two samples: Kolmogorov-Smirnov p = {ks:.2f}, Mann-Whitney p = {rank:.2f}"
    )
    tokenizer = model.assembly.tokenizer
    print(*(tokenizer.decode(row) for row in texts[:3].tolist()), sep="\n--\n", flush=True)
    return {
        "tokens_per_pass": per_pass,
        "tokens_per_pass_interval": (low, high),
        "nats_verified": float(ours.mean()),
        "nats_alone": float(theirs.mean()),
        "p_kolmogorov_smirnov": float(ks),
        "p_mann_whitney": float(rank),
    }


def timed(model: Model, ids: Tensor, new: int) -> dict[str, object]:
    """Seconds of a text of each kind, side by side, one row at a time."""
    ratios = []
    for index, row in enumerate(ids.split(1)):
        begun = time.perf_counter()
        plain(model, row, new, index)
        between = time.perf_counter()
        verified(model, row, new, index)
        ratios.append((between - begun) / (time.perf_counter() - between))
    print(f"seconds alone / verified, texts one by one: median {median(ratios):.2f}")
    return {"alone_over_verified_seconds": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("model", help="a run's folder, a checkpoint or an exported folder")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, help="tokens of a row (default: the model's)")
    parser.add_argument("--files", type=Path, nargs="+", default=[None])
    parser.add_argument("--untrained", action="store_true")
    parser.add_argument("--new", type=int, default=48, help="tokens to draw; 0: none")
    parser.add_argument("--timed", type=int, default=0, help="texts to time")
    parser.add_argument("--set", action="append", default=[], help="as in dlmkit sample")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    given = parser.parse_args()
    model = load_model(given.model, [*given.set, "sample.stop=[]"])  # all texts of one length
    objective, figures = drafting(model), {}
    if given.untrained:
        with torch.no_grad():
            for name, parameter in objective.named_parameters():
                if ".lora_B." in name or ".following.outer." in name:
                    parameter.zero_()
    for file in given.files:
        length = given.length or model.config.length
        ids, where = held_out(model, given.rows, length, file), str(file or "held-out rows")
        print(f"{where}: ", end="")
        figures[where] = by_place(objective, ids)
        if given.new:
            figures[where] |= drawn(model, ids, given.new)
        if given.timed:
            figures[where] |= timed(model, ids[: given.timed], given.new)
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
