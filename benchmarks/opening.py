"""How much memory opening a released model takes: a made-up LLaDA of about a gigabyte, in shards.

    python benchmarks/opening.py [--gigabytes 1.0] [--stored bf16] [--dtype fp32] [--file FOLDER]

A child process opens it as every command does and says the most memory that was ever resident, the
interpreter and its libraries included; and, for comparison, that of a process that imports the same
and opens nothing. The bound is 1.15 times the weights as they end up, plus 400 MB.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

MB = 1e6
SHARDS, WIDTH, LAYERS_EACH = 5, 1024, 2
BOUND = "1.15 times the weights plus 400 MB"


def write(folder: Path, gigabytes: float, stored: str) -> int:
    """A made-up model in ``folder``; the bytes of its weights."""
    import torch
    from safetensors.torch import save_file

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[stored]
    layer = 4 * WIDTH**2 + 3 * WIDTH * 4 * WIDTH
    size = 32000
    whole = int(gigabytes * 1e9 / dtype.itemsize)
    layers = max(SHARDS, (whole - 2 * size * WIDTH) // layer)
    config = {
        "model_type": "llada",
        "activation_type": "silu",
        "block_type": "llama",
        "d_model": WIDTH,
        "embedding_size": size,
        "layer_norm_type": "rms",
        "mask_token_id": size - 1,
        "max_sequence_length": 1024,
        "mlp_hidden_size": 4 * WIDTH,
        "n_heads": 16,
        "n_layers": layers,
        "rope": True,
        "vocab_size": size,
        "weight_tying": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    prefix = "model.transformer"
    shapes: dict[str, tuple[int, ...]] = {
        f"{prefix}.{name}.weight": (size, WIDTH) for name in ("wte", "ff_out")
    }
    shapes[f"{prefix}.ln_f.weight"] = (WIDTH,)
    for block in range(layers):
        inner: dict[str, tuple[int, ...]] = dict.fromkeys(
            ("ff_proj", "up_proj"), (4 * WIDTH, WIDTH)
        )
        inner |= dict.fromkeys(("q_proj", "k_proj", "v_proj", "attn_out"), (WIDTH, WIDTH))
        inner |= {"ff_out": (WIDTH, 4 * WIDTH), "attn_norm": (WIDTH,), "ff_norm": (WIDTH,)}
        shapes |= {f"{prefix}.blocks.{block}.{name}.weight": s for name, s in inner.items()}
    index: dict[str, str] = {}
    names, total = list(shapes), 0
    for shard in range(SHARDS):
        file = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        part = {n: (torch.randn(shapes[n]) * 0.02).to(dtype) for n in names[shard::SHARDS]}
        save_file(part, folder / file)
        index |= dict.fromkeys(part, file)
        total += sum(tensor.nbytes for tensor in part.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return total


def opened(folder: str | None, dtype: str | None) -> dict[str, float]:
    """The peak of this process in bytes, with what it opened."""
    import torch

    from dlmkit.registry.lookup import Registry
    from dlmkit.released.opening import DTYPES, open_released

    registry, weights = Registry.load(), 0
    if folder is None:
        import transformers.models.llama.modeling_llama  # noqa: F401  what opening imports
    else:
        model = open_released(Path(folder), registry, dtype=DTYPES[dtype] if dtype else None)
        parameters = list(model.assembly.objective.parameters())
        assert not any(p.is_meta or bool(torch.isnan(p).any()) for p in parameters[:3])
        weights = sum(p.nbytes for p in parameters)
    return {"peak": peak(), "weights": weights}


def peak() -> int:
    """The most bytes of this process that were ever resident."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says includes the parent's, up to the start of this one
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1])  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def child(*words: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--stored", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        folder, dtype = (*arguments.child, None, None)[:2]
        print(json.dumps(opened(folder, dtype)))
        return
    with tempfile.TemporaryDirectory() as name:
        stored = write(Path(name), arguments.gigabytes, arguments.stored)
        idle = child()["peak"]
        measured = child(name, *([arguments.dtype] if arguments.dtype else []))
    bound = 1.15 * measured["weights"] + 400 * MB
    print(f"stored          {stored / MB:8,.0f} MB in {SHARDS} shards")
    print(f"weights         {measured['weights'] / MB:8,.0f} MB in memory")
    print(f"peak            {measured['peak'] / MB:8,.0f} MB, libraries included")
    print(f"libraries alone {idle / MB:8,.0f} MB")
    print(f"bound           {bound / MB:8,.0f} MB ({BOUND})")
    sys.exit(0 if measured["peak"] <= bound else 8)


if __name__ == "__main__":
    main()
