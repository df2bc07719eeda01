"""Fitted users on disk."""

import json
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from pluralign.errors import CacheError
from pluralign.users import Basis, Clusters, Distribution, Individual, Latent, Pooled, Reliability, store


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


SHARED = draw(4, 3)
MODELS = {
    "pooled": Pooled(theta=draw(3), n_users=5),
    "pooled, float32, a row of a larger matrix": Pooled(theta=draw(4, 3, dtype=torch.float32)[1], n_users=5),
    "reliability": Reliability(
        theta=draw(3), log_scale=draw(5), log_scale_sd=draw(5).abs(), spread=0.7, lapse=0.01, position_bias=-0.125
    ),
    "soft clusters": Clusters(theta=draw(2, 3), shares=draw(2).softmax(0), membership=draw(5, 2).softmax(1), soft=True),
    "hard clusters, transposed": Clusters(
        theta=draw(3, 2).T, shares=torch.tensor([0.6, 0.4]), membership=torch.eye(2)[[0, 1, 0, 1, 0]], soft=False
    ),
    "basis": Basis(theta=draw(3), basis=draw(3, 2), mean=draw(5, 2), covariance=draw(5, 2, 2)),
    "basis of rank 0": Basis(theta=draw(3), basis=draw(3, 0), mean=draw(5, 0), covariance=draw(5, 0, 0)),
    "individual, whole covariance": Individual(
        theta=draw(3),
        axes=torch.eye(3),
        scale=draw(3).abs(),
        offset=draw(5, 3),
        covariance=draw(5, 3, 3),
        structure="full",
    ),
    "individual, its diagonal": Individual(
        theta=draw(3), axes=torch.eye(3), scale=draw(3).abs(), offset=draw(5, 3), covariance=draw(5, 3).abs()
    ),
    "latent": Latent(
        theta=draw(3),
        coordinates=draw(3, 2),
        decoder={"shift": draw(2), "taste": draw(2, 2)},
        encoder={"pair": draw(2, 4)},
        prior_log_weight=draw(1),
        prior_mean=draw(1, 2),
        prior_log_variance=draw(1, 2),
        log_weight=draw(5, 1),
        mean=draw(5, 1, 2),
        log_variance=draw(5, 1, 2),
        reference=draw(4, 3),
        form="linear",
    ),
    "distribution, linear": Distribution(
        weight=draw(2, 3), bias=draw(2), hidden=draw(0, 3), hidden_bias=draw(0), family="mean-variance", n_users=5
    ),
    "distribution, a hidden layer": Distribution(
        weight=draw(4, 2), bias=draw(4), hidden=draw(2, 3), hidden_bias=draw(2), family="categorical", n_users=5
    ),
    "views of one storage": Basis(theta=SHARED[0], basis=SHARED[1:3].T, mean=SHARED[:, :2], covariance=draw(4, 2, 2)),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_comes_back_bit_for_bit(name, tmp_path):
    model = MODELS[name]
    store.save(model, tmp_path)
    loaded = store.load(tmp_path)
    assert type(loaded) is type(model)
    for field in fields(model):
        mine, theirs = getattr(model, field.name), getattr(loaded, field.name)
        assert type(mine) is type(theirs), field.name
        if isinstance(mine, Tensor):
            assert mine.dtype == theirs.dtype, field.name
            assert torch.equal(mine, theirs), field.name
        elif isinstance(mine, dict):
            assert set(mine) == set(theirs)
            assert all(torch.equal(each, theirs[name]) for name, each in mine.items())
        else:
            assert mine == theirs, field.name
    assert sorted(file.name for file in tmp_path.iterdir()) == ["users.json", "users.safetensors"]


def test_every_kind_there_is_has_a_case():
    assert {type(model) for model in MODELS.values()} == set(store.KINDS.values())


def test_saving_again_replaces(tmp_path):
    store.save(MODELS["basis"], tmp_path)
    store.save(MODELS["pooled"], tmp_path)
    assert isinstance(store.load(tmp_path), Pooled)


def test_an_unknown_kind_is_named(tmp_path):
    store.save(MODELS["pooled"], tmp_path)
    (tmp_path / "users.json").write_text(json.dumps({"kind": "vpl"}))
    with pytest.raises(
        CacheError, match=r'unknown user model "vpl" in .*; known: basis, cluster, distribution, individual, latent'
    ):
        store.load(tmp_path)


@pytest.mark.parametrize("name", ["users.json", "users.safetensors"])
def test_a_missing_file_is_named(name, tmp_path):
    store.save(MODELS["pooled"], tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CacheError, match=f"holds no user model: {name} is missing") as error:
        store.load(tmp_path)
    assert error.value.hint == "name the folder that `pluralign fit --out` or `pluralign study --out` wrote"


@pytest.mark.parametrize("name", ["users.json", "users.safetensors"])
def test_a_damaged_file_is_named(name, tmp_path):
    store.save(MODELS["pooled"], tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:20])
    with pytest.raises(CacheError, match="is damaged"):
        store.load(tmp_path)
