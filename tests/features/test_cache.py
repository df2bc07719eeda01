import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pluralign.errors import CacheError, DataError, NotFittedError
from pluralign.features import Item, Precomputed, Style, Tfidf, cache, encode, encode_items, save_features
from pluralign.features.shards import open_shard

from .conftest import sentences, table
from .counting import Counting, hash_of

SCRIPT = Path(__file__).with_name("counting.py")


@pytest.fixture
def encoder(tmp_path):
    return Counting(tmp_path / "asked.log")


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(cache, "SHARD_ROWS", 8)


def files(folder):
    return sorted(folder.rglob("*.safetensors"))


def test_every_distinct_text_is_encoded_once(tmp_path, encoder):
    texts = sentences(20)
    items = [Item("", text) for text in texts + texts[::-1] + texts[5:6]]
    features = encode_items(items, encoder, cache_dir=tmp_path)
    assert encoder.asked() == texts
    assert features[:, 1].tolist() == [hash_of(item.response) for item in items]


def test_a_hit_encodes_nothing_and_copies_nothing(tmp_path, encoder):
    comparisons = table(sentences(30))
    first = encode(comparisons, encoder, cache_dir=tmp_path)
    encoder.log.unlink()
    again = encode(comparisons, encoder, cache_dir=tmp_path)
    assert encoder.asked() == []
    assert isinstance(again, np.memmap)
    assert not again.flags.writeable
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(again, encode(comparisons, encoder))  # as without a cache
    assert len(files(tmp_path)) == 1  # the shards were joined


def test_a_prefix_of_the_items_is_a_view_and_another_order_is_right(tmp_path, encoder):
    items = [Item("", text) for text in sentences(30)]
    features = encode_items(items, encoder, cache_dir=tmp_path)
    encoder.log.unlink()
    part = encode_items(items[3:9], encoder, cache_dir=tmp_path)
    assert isinstance(part, np.memmap)
    np.testing.assert_array_equal(part, features[3:9])
    np.testing.assert_array_equal(encode_items(items[::-1], encoder, cache_dir=tmp_path), features[::-1])
    assert encoder.asked() == []


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(st.lists(st.integers(0, 40), max_size=30), min_size=1, max_size=5))
def test_growing_data_encode_only_what_is_new(tmp_path_factory, rounds):
    folder = tmp_path_factory.mktemp("cache")
    encoder, seen = Counting(folder / "asked.log"), []
    for numbers in rounds:
        texts = [f"text {i}" for i in numbers]
        features = encode_items([Item("", text) for text in texts], encoder, cache_dir=folder)
        assert features[:, 1].tolist() == [hash_of(text) for text in texts]
        seen += [text for text in dict.fromkeys(texts) if text not in seen]
        assert encoder.asked() == seen


def test_settings_prompts_and_precisions_do_not_mix(tmp_path, encoder):
    item = Item("", "a text")
    assert encode_items([item], encoder, cache_dir=tmp_path)[0, 3] == 0
    other = Counting(encoder.log, version=1)
    assert encode_items([item], other, cache_dir=tmp_path)[0, 3] == 1
    assert encode_items([Item("why", "a text")], encoder, cache_dir=tmp_path)[0, 2] == 3
    assert encode_items([item], Counting(encoder.log, stored="float16"), cache_dir=tmp_path).dtype == np.float16
    assert len(encoder.asked()) == 4
    # A prompt's end is not a response's beginning.
    assert encode_items([Item("a", "bc"), Item("ab", "c")], encoder, cache_dir=tmp_path)[:, 2].tolist() == [1, 2]


@pytest.mark.parametrize("damage", ["flip", "cut", "header", "empty"])
def test_a_damaged_shard_is_made_again(tmp_path, encoder, caplog, damage):
    items = [Item("", text) for text in sentences(12)]
    first = np.array(encode_items(items, encoder, cache_dir=tmp_path))
    encoder.log.unlink()
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-200] ^= 1
    path.write_bytes({"cut": content[:-5], "header": b"\xff" * 20 + content, "empty": b""}.get(damage, bytes(content)))
    again = encode_items(items, encoder, cache_dir=tmp_path)
    np.testing.assert_array_equal(again, first)
    assert len(encoder.asked()) == 12
    assert "removed a damaged feature file" in caplog.text


def test_files_are_what_safetensors_reads(tmp_path, encoder):
    from safetensors.numpy import load_file

    items = [Item("", text) for text in sentences(12)]
    features = encode_items(items, encoder, cache_dir=tmp_path)
    (path,) = files(tmp_path)
    np.testing.assert_array_equal(load_file(path)["features"], features)
    note = json.loads((path.parent / "encoder.json").read_text())
    assert note == {"kind": "counting", "version": 0, "stored": "float32", "dim": 4}


def run(tmp_path, name, *, wait_s=0.0, launcher=(sys.executable,)):
    command = [*launcher, SCRIPT, tmp_path / "texts", tmp_path / "cache", tmp_path / "log", tmp_path / name, wait_s, 8]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([str(part) for part in command], env=environment, stderr=subprocess.PIPE, text=True)


def test_a_run_killed_half_way_resumes_with_what_it_had(tmp_path):
    texts = sentences(60)
    (tmp_path / "texts").write_text("\n".join(texts))
    process = run(tmp_path, "killed", wait_s=0.02)
    deadline = time.monotonic() + 60
    while len(files(tmp_path / "cache")) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = sum(len(open_shard(path)) for path in files(tmp_path / "cache"))
    assert 0 < done < 60
    assert not list(tmp_path.glob("killed*"))

    encoder = Counting(tmp_path / "log")
    encoder.log.unlink()
    resumed = encode_items([Item("", text) for text in texts], encoder, cache_dir=tmp_path / "cache")
    assert encoder.asked() == texts[done:]
    np.testing.assert_array_equal(resumed, encode_items([Item("", text) for text in texts], encoder))


def test_ctrl_c_leaves_the_shards_that_were_done(tmp_path, encoder, monkeypatch):
    texts = sentences(30)
    items = [Item("", text) for text in texts]
    kept = Counting.encode

    def interrupted(self, items, **given):
        if any(item.response == texts[20] for item in items):
            raise KeyboardInterrupt
        return kept(self, items, **given)

    monkeypatch.setattr(Counting, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        encode_items(items, encoder, cache_dir=tmp_path)
    assert [len(open_shard(path)) for path in files(tmp_path)] == [8, 8]
    assert not list(tmp_path.rglob("*.part"))
    monkeypatch.setattr(Counting, "encode", kept)
    encoder.log.unlink()
    encode_items(items, encoder, cache_dir=tmp_path)
    assert encoder.asked() == texts[16:]


def test_two_processes_share_the_work(tmp_path):
    texts = sentences(50)
    (tmp_path / "texts").write_text("\n".join(texts))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    process = run(tmp_path, "out", wait_s=0.02, launcher=torchrun)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    encoder = Counting(tmp_path / "log")
    alone = encode_items([Item("", text) for text in texts], Counting(tmp_path / "other.log"))
    for rank in range(2):  # files are named by rank and world size: there were two
        np.testing.assert_array_equal(np.load(tmp_path / f"out.{rank}of2.npy"), alone)
    assert sorted(encoder.asked()) == sorted(texts)  # each once
    ranks = encoder.ranks()
    assert (ranks.count(0), ranks.count(1)) == (26, 24)  # shards of 8: 0, 2, 4 and the last two; 1, 3, 5
    assert len(files(tmp_path / "cache")) == 1


def test_work_of_a_process_that_never_came_is_done(tmp_path, encoder, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(cache, "PATIENCE_S", 0.3)
    texts = sentences(20)
    features = encode_items([Item("", text) for text in texts], encoder, cache_dir=tmp_path)
    assert features[:, 1].tolist() == [hash_of(text) for text in texts]
    assert sorted(encoder.asked()) == sorted(texts)


def test_no_progress_bar_without_a_terminal(tmp_path, encoder, capfd):
    encode_items([Item("", "a text")], encoder, cache_dir=tmp_path)
    encode_items([Item("", "another")], encoder, progress=False)
    assert capfd.readouterr() == ("", "")


def test_features_that_no_number_can_hold(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(Counting, "encode", lambda self, items, **given: np.full((len(items), 4), np.nan))
    with pytest.raises(DataError, match="the features of 'a text' hold a NaN or an infinity"):
        encode_items([Item("", "a text")], encoder)
    monkeypatch.setattr(Counting, "encode", lambda self, items, **given: np.full((len(items), 4), 1e5))
    with pytest.raises(CacheError, match=r"a feature is 1e\+05, which is beyond float16") as caught:
        encode_items([Item("", "a text")], Counting(encoder.log, stored="float16"))
    assert 'stored="float32"' in caught.value.hint


def test_an_encoder_that_has_not_learnt(tmp_path):
    with pytest.raises(NotFittedError, match="Tfidf learns from texts and has not been fitted") as caught:
        encode(table(sentences(3)), Tfidf())
    assert "fit_encoder" in caught.value.hint


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot write to") as caught:
        encode(table(sentences(3)), Style(), cache_dir=tmp_path / "file")
    assert "another folder" in caught.value.hint


def test_what_the_cache_wrote_is_also_a_precomputed_array(tmp_path, encoder):
    comparisons = table(sentences(12))
    features = encode(comparisons, encoder, cache_dir=tmp_path)
    np.testing.assert_array_equal(encode(comparisons, Precomputed(files(tmp_path)[0])), features)
    save_features(tmp_path / "own.safetensors", comparisons, np.asarray(features))
    np.testing.assert_array_equal(encode(comparisons, Precomputed(tmp_path / "own.safetensors")), features)


def test_no_items():
    assert encode_items([], Style()).shape == (0, Style().dim)
