"""Several processes on one machine (gloo): the same run as one, and sharded parameters."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).parent / "distributed.py"


def run(what, folder, base, *, processes=2):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    done = subprocess.run(
        [*(launch if processes > 1 else [sys.executable]), str(SCRIPT), what, str(folder), str(base)],
        env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def losses(folder):
    history = json.loads((folder / "training.json").read_text())
    return [each["loss"] for each in history if "loss" in each]


@pytest.mark.study
def test_two_processes_train_as_one(base_folder, tmp_path):
    run("alone", tmp_path / "one", base_folder, processes=1)
    run("together", tmp_path / "two", base_folder)
    ranks = [json.loads((tmp_path / "two" / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert [each["world"] for each in ranks] == [2, 2]
    assert ranks[0]["sums"] == ranks[1]["sums"]
    one, two = (losses(tmp_path / name) for name in ("one", "two"))
    assert len(one) == 6
    np.testing.assert_allclose(two, one, rtol=1e-4)
    for name in ("personal.safetensors", "adapter/adapter_model.safetensors"):
        mine, theirs = (load_file(tmp_path / which / name) for which in ("one", "two"))
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            np.testing.assert_allclose(theirs[key], value, rtol=1e-2, atol=1e-4, err_msg=key)


def test_sharded_parameters_step_and_are_saved(base_folder, tmp_path):
    (tmp_path / "model").mkdir()
    run("sharded", tmp_path / "model", base_folder)
    found = json.loads((tmp_path / "model" / "found.json").read_text())
    assert found["world"] == 2
    assert found["worst"] < 1e-4
    assert found["equal"]
