from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray
from scipy.stats import expectile as scipy_expectile

from pluralign.control.evaluation import success_rates
from pluralign.control.iql import IqlSettings, Policy, _encoding, _Learner, expectile_loss, train_iql
from pluralign.control.rewards import RewardTable
from pluralign.control.tasks import Offline, Steered
from pluralign.errors import CacheError, ConfigError, DataError

from .line import Line

SMALL = IqlSettings(steps=600, width=32, batch=64, learning_rate=3e-3, discount=0.9, target_rate=0.02)

LINE = Line()
DATA = LINE.offline(1000, seed=0)
KIND = np.arange(20) % 2


def pool(z: ndarray) -> RewardTable:
    """Rewards of the left user for z < 0 and of the right one for z > 0, centred."""
    rewards = LINE.rewards(DATA.after).T - 0.5
    return RewardTable(z=z[:, None].astype(np.float32), value=rewards[:, (z > 0).astype(int)].astype(np.float32))


def nobody() -> RewardTable:
    """The mean of both users' rewards, without a latent."""
    return RewardTable(
        z=np.zeros((1, 0), dtype=np.float32), value=LINE.rewards(DATA.after).mean(0)[:, None].astype(np.float32) - 0.5
    )


def tensors(policy: Policy) -> list[torch.Tensor]:
    return [*vars(policy.encoding).values(), *policy.layers, policy.log_std]


def same(a: Policy, b: Policy) -> bool:
    return all(torch.equal(one, other) for one, other in zip(tensors(a), tensors(b), strict=True))


@pytest.fixture(scope="module")
def trained() -> Policy:
    # The data are a single trajectory: with one latent for each trajectory, half of the users would have no data.
    return train_iql(DATA, pool(np.random.default_rng(1).normal(size=64)), SMALL, seed=0)


def test_the_line_is_a_task():
    assert isinstance(LINE, Steered)


def test_every_user_is_brought_where_they_want_to_be(trained):
    done = success_rates(LINE, trained, np.where(KIND == 0, -1.0, 1.0)[:, None], KIND, seed=0)
    assert done.success.all()


def test_the_averaged_reward_brings_nobody_anywhere():
    policy = train_iql(DATA, nobody(), SMALL, seed=0)
    done = success_rates(LINE, policy, np.zeros((20, 0)), KIND, seed=0)
    assert done.success.mean() <= 0.5  # one end for all at the very most
    # No action is better than another, so the policy is the data's mean action, 0.
    assert abs(done.path[:, -1, 0] - done.path[:, 0, 0]).mean() < 0.5


@pytest.mark.parametrize(("expectile", "value"), [(0.5, 2.5), (0.99, 5.0)])
def test_values_are_those_of_the_data_or_of_the_best_action(expectile, value):
    # Two states, and an action says which comes next; it is random in the data, and one state has reward 1. Worth:
    # 0.5 / (1 - 0.8) if one goes on like that, 1 / (1 - 0.8) if one does what is best.
    rng = np.random.default_rng(0)
    state = rng.permutation(np.repeat([-1.0, 1.0], 250))[:, None]
    state = np.concatenate([state, state[:1]])
    data = Offline(observation=state[:-1], action=state[1:], after=state[1:], episode=np.zeros(500, dtype=np.int32))
    table = RewardTable(z=np.zeros((1, 0), np.float32), value=(state[1:] > 0).astype(np.float32))
    found = []
    to = replace(SMALL, steps=800, width=16, discount=0.8, expectile=expectile, target_rate=0.05)
    train_iql(data, table, to, seed=0, on_step=lambda _, numbers: found.append(numbers["v"]))
    assert found[-1] == pytest.approx(value, rel=0.08)


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
@settings(max_examples=30)
def test_the_loss_is_least_at_scipys_expectile(seed, tau):
    values = np.random.default_rng(seed).normal(size=20)
    estimate = torch.tensor(scipy_expectile(values, tau), requires_grad=True)
    expectile_loss(torch.as_tensor(values) - estimate, tau).mean().backward()
    assert estimate.grad is not None
    assert abs(estimate.grad.item()) < 1e-6


def test_half_is_the_mean_and_nine_tenths_by_hand():
    # 0 and 1: 0.1 e = 0.9 (1 - e) at e = 0.9.
    for tau, value in ((0.5, 0.5), (0.9, 0.9)):
        estimate = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        expectile_loss(torch.tensor([0.0, 1.0], dtype=torch.float64) - estimate, tau).mean().backward()
        assert estimate.grad is not None
        assert abs(estimate.grad.item()) < 1e-12


def test_without_temperature_the_data_are_copied():
    data = replace(DATA, action=np.full_like(DATA.action, 0.25))
    policy = train_iql(data, pool(np.array([-1.0, 1.0])), replace(SMALL, steps=300, temperature=0.0), seed=0)
    assert np.allclose(policy.act(np.zeros((2, 1)), np.array([[-1.0], [1.0]])), 0.25, atol=0.02)


def test_a_shaped_reward_knows_no_constant():
    # Multiples of 1/64, whose differences are exact.
    value = (np.round(LINE.rewards(DATA.after).T * 64) / 64).astype(np.float32)
    given = value.copy()
    table = RewardTable(z=LINE.goals().astype(np.float32), value=value)
    lifted = replace(table, value=value + np.array([1.0, -7.0], dtype=np.float32))
    to = replace(SMALL, steps=250, shaped=True)
    policy = train_iql(DATA, table, to, seed=0)
    assert same(policy, train_iql(DATA, lifted, to, seed=0))
    assert np.array_equal(value, given)
    assert success_rates(LINE, policy, LINE.goals()[KIND], KIND, seed=0).success.all()


def test_shaping_takes_the_same_off_all_actions_of_a_state():
    # As above, worth 2.5 on average; before a step the state's own reward over (1 - 0.8) is 0 or 5, on average 2.5.
    state = np.random.default_rng(0).permutation(np.repeat([-1.0, 1.0], 250))[:, None]
    data = Offline(observation=state[:-1], action=state[1:], after=state[1:], episode=np.zeros(499, dtype=np.int32))
    table = RewardTable(z=np.zeros((1, 0), np.float32), value=(state[1:] > 0).astype(np.float32))
    found = []
    to = replace(SMALL, steps=500, width=16, batch=1024, discount=0.8, expectile=0.5, target_rate=0.05, shaped=True)
    train_iql(data, table, to, seed=0, on_step=lambda _, numbers: found.append(numbers["v"]))
    assert found[-1] == pytest.approx(2.5 - 2.5, abs=0.3)


def test_steps_alone_cannot_be_shaped():
    data = replace(DATA, episode=np.arange(len(DATA.action), dtype=np.int32))
    with pytest.raises(DataError, match="no episode has two steps"):
        train_iql(data, nobody(), replace(SMALL, shaped=True), seed=0)


def test_actions_are_cut_to_their_range(trained):
    action = trained.act(np.linspace(-5, 5, 11)[:, None], np.linspace(-9, 9, 11)[:, None])
    assert action.shape == (11, 1)
    assert abs(action).max() <= 1


def test_the_seed_decides_everything_and_nothing_global(unbroken):
    before = torch.get_rng_state()
    again, other = (train_iql(DATA, pool(np.array([-1.0, 1.0])), unbroken.settings, seed=seed) for seed in (3, 4))
    assert same(again, unbroken)
    assert not same(other, unbroken)
    assert torch.equal(torch.get_rng_state(), before)


def test_saved_and_loaded_it_does_the_same(tmp_path, trained):
    trained.save(tmp_path)
    loaded = Policy.load(tmp_path)
    assert same(trained, loaded)
    assert (loaded.settings, loaded.steps) == (SMALL, SMALL.steps)
    x, z = np.linspace(-1, 1, 7)[:, None], np.linspace(1, -1, 7)[:, None]
    assert np.array_equal(trained.act(x, z), loaded.act(x, z))


def test_rare_states_that_a_user_wants_are_drawn_more_often():
    # One step in 200 starts where the reward is 1; the best of 16 finds it in 1 - 0.995^16 = 7.7 % of half the draws.
    value = np.tile(np.append(np.zeros(199), 1.0), 5).astype(np.float32)[:, None]
    table = RewardTable(z=np.zeros((1, 0), np.float32), value=value)
    generator = torch.Generator().manual_seed(0)
    to = replace(SMALL, candidates=16)
    learner = _Learner(DATA, table, to, _encoding(DATA, table), generator, torch.device("cpu"))
    learner._draw()
    assert learner.draws is not None
    before = torch.as_tensor(value)[learner.draws[0] - 1, 0]
    assert before[:, :32].mean() == pytest.approx(0.005 * 0.8, abs=0.004)  # the last step has none after it
    assert before[:, 32:].mean() == pytest.approx(1 - (1 - 4 / 999) ** 16, abs=0.02)


@pytest.fixture(scope="module")
def unbroken() -> Policy:
    return train_iql(DATA, pool(np.array([-1.0, 1.0])), replace(SMALL, steps=220, candidates=4), seed=3)


@pytest.mark.parametrize("stop", [100, 130])  # between the draws of a hundred minibatches, and within
def test_a_training_goes_on_where_it_stopped(tmp_path, stop, unbroken):
    table = pool(np.array([-1.0, 1.0]))

    def leave(done: int, _: dict[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_iql(DATA, table, unbroken.settings, seed=3, on_step=leave, report_every=stop, checkpoint=tmp_path)
    steps: list[int] = []
    resumed = train_iql(
        DATA, table, unbroken.settings, seed=3, checkpoint=tmp_path, on_step=lambda done, _: steps.append(done)
    )
    assert steps == [220]
    assert same(resumed, unbroken)
    # A finished one is read, not trained.
    assert same(train_iql(DATA, table, unbroken.settings, seed=3, checkpoint=tmp_path), unbroken)


def test_the_checkpoint_of_another_training_is_not_used(tmp_path):
    table, to = pool(np.array([-1.0, 1.0])), replace(SMALL, steps=20)
    train_iql(DATA, table, to, seed=0, checkpoint=tmp_path)
    assert same(train_iql(DATA, table, to, seed=1, checkpoint=tmp_path), train_iql(DATA, table, to, seed=1))


def test_reports_come_on_time_and_are_numbers():
    seen: list[tuple[int, dict[str, float]]] = []
    train_iql(
        DATA, nobody(), replace(SMALL, steps=25), seed=0, report_every=10, on_step=lambda *each: seen.append(each)
    )
    assert [done for done, _ in seen] == [10, 20, 25]
    assert all(np.isfinite(list(numbers.values())).all() for _, numbers in seen)


def test_damaged_files_are_named(tmp_path, trained):
    with pytest.raises(CacheError, match=r"holds no policy: policy\.safetensors is missing"):
        Policy.load(tmp_path)
    trained.save(tmp_path)
    for name in ("policy", "training"):
        (tmp_path / f"{name}.safetensors").write_bytes((tmp_path / "policy.safetensors").read_bytes()[:100])
    with pytest.raises(CacheError, match=r"the policy in .* is damaged"):
        Policy.load(tmp_path)
    with pytest.raises(CacheError, match=r"the checkpoint in .* is damaged"):
        train_iql(DATA, nobody(), SMALL, seed=0, checkpoint=tmp_path)


def test_what_does_not_fit_is_named(trained):
    table = pool(np.array([-1.0, 1.0]))
    with pytest.raises(DataError, match="999 rewards under 2 latents, for 1000 steps and 2 latents"):
        train_iql(DATA, replace(table, value=table.value[:-1]), SMALL, seed=0)
    wrong = table.value.copy()
    wrong[7, 1] = np.nan
    with pytest.raises(DataError, match="row 7 of value is not finite"):
        train_iql(DATA, replace(table, value=wrong), SMALL, seed=0)
    with pytest.raises(ConfigError, match="latents have 2 numbers; this policy was trained on 1"):
        trained.act(np.zeros((3, 1)), np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be above 0"),
        ({"temperature": -1.0}, "temperature is -1.0; it must be at least 0"),
        ({"expectile": 1.0}, "expectile is 1.0; it must be above 0 and below 1"),
        ({"target_rate": 1.5}, "target_rate is 1.5; it must be above 0 and at most 1"),
    ],
)
def test_settings_say_what_they_accept(setting, message):
    with pytest.raises(ConfigError, match=message):
        IqlSettings(**setting)


def test_a_training_that_diverges_is_an_error():
    with pytest.raises(DataError, match="training diverged"):
        train_iql(DATA, nobody(), replace(SMALL, steps=60, learning_rate=1e30), seed=0)


@pytest.mark.filterwarnings("ignore")  # of the old gym that d3rlpy imports
def test_d3rlpy_does_as_well_on_the_same_data(trained):
    d3rlpy = pytest.importorskip("d3rlpy", reason="pip install 'pluralign[d3rlpy]'")
    d3rlpy.seed(0)
    goals = LINE.goals()
    rewards = LINE.rewards(DATA.after) - 0.5
    dataset = d3rlpy.dataset.MDPDataset(  # every user's copy of the data, as z cannot be redrawn
        observations=np.concatenate([np.hstack([DATA.observation, np.full((1000, 1), z)]) for z in goals]).astype("f4"),
        actions=np.tile(DATA.action, (2, 1)).astype("f4"),
        rewards=rewards.reshape(-1, 1).astype("f4"),
        terminals=np.zeros(2000, "f4"),
        timeouts=(np.arange(2000) % 1000 == 999).astype("f4"),
    )
    hidden = d3rlpy.models.VectorEncoderFactory([SMALL.width] * 2)
    theirs = d3rlpy.algos.IQLConfig(
        actor_learning_rate=SMALL.learning_rate,
        critic_learning_rate=SMALL.learning_rate,
        actor_encoder_factory=hidden,
        critic_encoder_factory=hidden,
        value_encoder_factory=hidden,
        batch_size=SMALL.batch,
        gamma=SMALL.discount,
        tau=SMALL.target_rate,
        expectile=SMALL.expectile,
        weight_temp=SMALL.temperature,
    ).create(device="cpu:0")
    quiet = d3rlpy.logging.NoopAdapterFactory()
    theirs.fit(dataset, n_steps=600, n_steps_per_epoch=600, show_progress=False, logger_adapter=quiet)

    class Theirs:
        def act(self, observation: ndarray, z: ndarray) -> ndarray:
            return np.clip(theirs.predict(np.hstack([observation, z]).astype("f4")), -1, 1)

    ours, other = (success_rates(LINE, each, goals[KIND], KIND, seed=0) for each in (trained, Theirs()))
    assert ours.success.all()
    assert other.success.all()
    assert np.allclose(ours.path[:, -1], other.path[:, -1], atol=0.1)
