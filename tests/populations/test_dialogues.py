import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pluralign.comparisons import decode_chat
from pluralign.errors import ConfigError, DataError
from pluralign.features import Design
from pluralign.inference.pooled import fit_pooled
from pluralign.language_models.tiny import TinySettings
from pluralign.populations import (
    answer_log_prob,
    embedded_language_model,
    parse_styles,
    read_style,
    simulate_dialogues,
    write_dialogues,
)
from pluralign.populations.dialogues import _TOPIC, STYLES, _answer

GUITAR = "What would an expert say about learning the guitar?"


def generate(model, tokenizer, prompts, **settings):
    batch = tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side="left")
    out = model.generate(**batch, max_new_tokens=48, **settings)[:, batch["input_ids"].shape[1] :]
    return tokenizer.batch_decode(out, skip_special_tokens=True)


def test_styles_by_hand():
    answers = {
        "Tune the strings every time.": (0, 0),
        "I feel for you. You should tune the strings every time.": (0, 1),
        "It helps to start with two easy chords. Practise 15 minutes a day.": (1, 0),
        "Trust yourself, you are doing fine. Start here: tune the strings every time. Practise 15 minutes a day.": (
            1,
            1,
        ),
    }
    assert read_style(list(answers)).tolist() == [list(style) for style in answers.values()]
    assert parse_styles([GUITAR] * 4, list(answers)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Tune the strings every time",
        "Tune the strings every time. ",
        "Tune the strings  every time.",
        "Feed the starter the evening before.",  # another topic's
        "Tune the strings every time. Start with two easy chords.",
        "Practise 15 minutes a day. Tune the strings every time.",
        "Tune the strings every time. I feel for you.",
        "I feel for you.",
        "Tune the strings every time. Practise 15 minutes a day. Practise 15 minutes a day.",
    ],
)
def test_what_could_not_have_been_written_is_no_answer(text):
    assert parse_styles([GUITAR], [text]).tolist() == [-1]
    assert answer_log_prob([GUITAR], [text]).tolist() == [-np.inf]


@pytest.mark.parametrize("long", [False, True])
def test_everything_written_parses_as_the_style_it_shows(long):
    prompts, responses = zip(*write_dialogues(2000, seed=0, long=long), strict=True)
    style = parse_styles(prompts, responses, long=long)
    assert np.array_equal(np.array(STYLES)[style], read_style(responses))
    assert np.abs(np.bincount(style, minlength=4) / 2000 - 0.25).max() < 0.04  # 4 standard errors


def test_probabilities_of_the_answers_to_a_prompt_sum_to_one():
    rng = np.random.default_rng(0)
    times = (2000, 4000, 2000, 12_000)  # about twenty times what there is of each style
    drawn = [[_answer(_TOPIC[GUITAR], style, rng, long=False) for _ in range(n)] for style, n in enumerate(times)]
    answers = sorted(set().union(*drawn))
    assert len(answers) == 6 * 4 * (1 + 3) * (1 + 8)  # steps, frames, details or none, kind sentences or none
    assert np.exp(answer_log_prob([GUITAR] * len(answers), answers)).sum() == pytest.approx(1)
    for style, (mine, n) in enumerate(zip(drawn, times, strict=True)):
        share = 4 * np.exp(answer_log_prob([GUITAR], mine[:1])[0])  # within its style
        assert share == pytest.approx(1 / (24 * (3 if style > 1 else 1) * (8 if style % 2 else 1)))
        assert abs(mine.count(mine[0]) / n - share) < 4 * np.sqrt(share / n)


def test_entropy_by_hand():
    prompts, responses = zip(*write_dialogues(4000, seed=1), strict=True)
    entropy = np.log(4) + np.log(6) + np.log(4) + np.log(3) / 2 + np.log(8) / 2
    spread = (np.log(3) + np.log(8)) / 2  # at most this far from the mean
    assert -answer_log_prob(prompts, responses).mean() == pytest.approx(entropy, abs=4 * spread / np.sqrt(4000))


def test_reward_reads_any_text():
    dialogues = simulate_dialogues(seed=0)
    users = [int(np.flatnonzero(dialogues.cluster == k)[0]) for k in (0, 1)]
    texts = ["gnarl", "3 gnarls", "care, gnarl", "care for 3 gnarls", ""]
    assert dialogues.reward([""] * 5, texts, np.full(5, users[0])).tolist() == [0, -4, 1, -3, 0]
    assert dialogues.reward([""] * 5, texts, np.full(5, users[1])).tolist() == [0, 4, 1, 5, 0]


def test_reward_of_the_items_is_the_one_that_chose():
    dialogues = simulate_dialogues(noise=0.0, seed=3)
    table = dialogues.comparisons
    text, prompt = table.items.response.to_pylist(), table.items.prompts.to_pylist()

    def reward(item):
        return dialogues.reward([prompt[i] for i in table.items.prompt[item]], [text[i] for i in item], table.user)

    margin = reward(table.chosen) - reward(table.rejected)
    assert dialogues.population.chosen == pytest.approx(1 / (1 + np.exp(-margin)))
    style = parse_styles([prompt[i] for i in table.items.prompt], text)
    assert (style[table.chosen] != style[table.rejected]).all()


def test_the_best_that_does_not_know_the_user_fails_the_minority():
    dialogues = simulate_dialogues(seed=0)
    assert np.bincount(dialogues.cluster).tolist() == [28, 12]
    for rows in (None, dialogues.split.train, dialogues.split.test):
        ceiling, pooled = dialogues.ceiling(rows), dialogues.pooled_ceiling(rows)
        assert ceiling.min() > 0.85
        assert pooled[0] == pytest.approx(ceiling[0])  # it names what the majority chooses, in every pair
        assert pooled[1] < 0.35
    # What is recorded keeps to what is expected, and both to `Population`'s own account.
    share = np.bincount(dialogues.cluster[dialogues.comparisons.user]) / len(dialogues.comparisons)
    assert dialogues.ceiling() @ share == pytest.approx(dialogues.population.ceiling)
    oracle = dialogues.population.oracle()
    assert oracle.correct.mean() == pytest.approx(dialogues.population.ceiling, abs=4 * 0.34 / np.sqrt(len(oracle)))


def test_ceilings_by_hand():
    # One axis tells, in which 8 of 12 ordered pairs of styles differ; the other 4 are told apart by nobody.
    dialogues = simulate_dialogues(tastes=((-2.0, 0.0), (2.0, 0.0)), noise=0.1, n_users=100, seed=0)
    p = 0.9 / (1 + np.exp(-2)) + 0.1 / (1 + np.exp(2))
    error = 4 * 0.2 / np.sqrt(30 * 50)
    assert dialogues.ceiling() == pytest.approx(np.full(2, 2 / 3 * p + 1 / 6), abs=error)
    assert dialogues.pooled_ceiling() == pytest.approx([2 / 3 * p + 1 / 6, 2 / 3 * (1 - p) + 1 / 6], abs=error)
    nobody = dialogues.ceiling(np.flatnonzero(dialogues.cluster[dialogues.comparisons.user] == 0))
    assert np.isnan(nobody).tolist() == [False, True]


def test_a_pooled_fit_on_the_true_features_reaches_the_pooled_ceiling():
    dialogues = simulate_dialogues(comparisons_per_user=100, seed=1)
    design = Design.of(dialogues.comparisons, torch.as_tensor(dialogues.population.features))
    rows = np.zeros(len(dialogues.comparisons), dtype=bool)
    rows[dialogues.split.train] = True
    fit, _ = fit_pooled(design.take(torch.as_tensor(rows)), ridge=1e-3)
    test = design.take(torch.as_tensor(~rows))
    correct = fit.predict(test).correct
    group = dialogues.cluster[test.user.numpy()]
    found = np.array([correct[group == k].mean() for k in (0, 1)])
    error = 4 * 0.47 / np.sqrt(np.bincount(group))
    assert (np.abs(found - dialogues.pooled_ceiling(dialogues.split.test)) < error).all()
    assert found[1] < 0.4


def test_no_prompt_is_on_both_sides_and_prompts_are_sources():
    dialogues = simulate_dialogues(seed=2)
    train, test = dialogues.train, dialogues.test
    assert len(train) + len(test) == 2000
    assert 0.15 < len(test) / 2000 <= 0.2
    assert not set(train.source) & set(test.source)
    assert np.array_equal(train.source, train.items.prompt[train.chosen])


def test_long_prompts_and_answers():
    prompts, responses = zip(*write_dialogues(200, seed=0, long=True), strict=True)
    assert {prompt.rsplit("\n", 1)[1] for prompt in prompts} <= set(_TOPIC)
    words = np.array([len(prompt.split()) for prompt in prompts])
    assert words.min() >= 215
    assert words.max() < 275
    assert 25 < np.mean([len(response.split()) for response in responses]) < 40
    dialogues = simulate_dialogues(long=True, n_users=4, n_prompts=20, seed=0)
    assert min(len(prompt.split()) for prompt in dialogues.comparisons.items.prompts.to_pylist()) >= 215


def test_fewer_topics():
    dialogues = simulate_dialogues(n_topics=2, n_users=10, seed=0)
    prompts = dialogues.comparisons.items.prompts.to_pylist()
    assert len(prompts) == 40
    assert {_TOPIC[prompt][0] for prompt in prompts} == {"baking sourdough bread", "growing tomatoes on a balcony"}
    assert {prompt for prompt, _ in write_dialogues(1000, seed=0, n_topics=2)} == set(prompts)


def test_chats_say_what_texts_say():
    text, chat = (simulate_dialogues(n_users=4, chat=chat, seed=5) for chat in (False, True))
    assert chat.comparisons.format == "chat"
    assert np.array_equal(text.comparisons.chosen, chat.comparisons.chosen)
    assert np.array_equal(text.population.features, chat.population.features)
    [message] = decode_chat(chat.comparisons.items.response[0].as_py())
    assert message == {"role": "assistant", "content": text.comparisons.items.response[0].as_py()}
    [message] = decode_chat(chat.comparisons.items.prompts[0].as_py())
    assert message == {"role": "user", "content": text.comparisons.items.prompts[0].as_py()}


def test_the_same_seed_simulates_the_same():
    one, same, other = (simulate_dialogues(n_users=6, seed=seed) for seed in (1, 1, 2))
    assert one.comparisons.items.response.equals(same.comparisons.items.response)
    assert np.array_equal(one.comparisons.chosen, same.comparisons.chosen)
    assert not one.comparisons.items.response.equals(other.comparisons.items.response)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"tastes have shape \(2, 3\); expected a row for each group, of 2 rewards"):
        simulate_dialogues(tastes=((1.0, 2.0, 3.0), (1.0, 2.0, 3.0)))
    with pytest.raises(ConfigError, match=r"shares are \[0\.7, 0\.2\]; 2 groups need as many, above 0, that sum to 1"):
        simulate_dialogues(shares=(0.7, 0.2))
    with pytest.raises(ConfigError, match=r"noise is 0\.5; it must be at least 0 and below 0.5"):
        simulate_dialogues(noise=0.5)
    with pytest.raises(ConfigError, match="n_prompts is 401; it must be 2 to 400"):
        simulate_dialogues(n_prompts=401)
    with pytest.raises(ConfigError, match="n_prompts is 21; it must be 2 to 20"):
        simulate_dialogues(n_prompts=21, n_topics=1)
    with pytest.raises(ConfigError, match="n_topics is 0; it must be 1 to 20"):
        simulate_dialogues(n_topics=0)
    with pytest.raises(ConfigError, match="n_responses is 6; it must be 4 to 64, a multiple of 4"):
        simulate_dialogues(n_responses=6)
    with pytest.raises(ConfigError, match="n_users is 1; it must be at least 1 for each of 2 groups"):
        simulate_dialogues(n_users=1)
    dialogues = simulate_dialogues(n_users=4, seed=0)
    with pytest.raises(DataError, match="there are 1 prompts, 2 responses and 1 users"):
        dialogues.reward(["a"], ["b", "c"], np.array([0]))
    with pytest.raises(DataError, match="there is no user -1; users are 0 to 3"):
        dialogues.reward(["a"], ["b"], np.array([-1]))
    with pytest.raises(DataError, match="'Why\\?' is not a request that `write_dialogues` makes"):
        parse_styles(["Why?"], ["So."])


def test_a_smaller_one_answers_requests_about_one_topic(tmp_path):
    settings = TinySettings(hidden=64, layers=2, heads=2, steps=120, learning_rate=1e-2)
    folder = embedded_language_model(settings=settings, n_topics=1, cache=tmp_path, progress=False)
    assert json.loads((folder / "pluralign.json").read_text())["settings"]["seed"] == 0
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompts = simulate_dialogues(n_topics=1, n_users=10, seed=0).comparisons.items.prompts.to_pylist()
    styles = parse_styles(prompts, generate(model, tokenizer, prompts, do_sample=False))
    assert (styles >= 0).mean() > 0.9
    torch.manual_seed(0)
    sampled = parse_styles(prompts * 5, generate(model, tokenizer, prompts * 5, do_sample=True))
    assert (sampled >= 0).mean() > 0.5
    assert np.bincount(sampled[sampled >= 0], minlength=4).min() > 0


@pytest.mark.study
@pytest.mark.usefixtures("whole_runs")
def test_the_embedded_language_model_speaks_every_style(tmp_path):
    folder = embedded_language_model(cache=tmp_path, progress=False)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    losses = json.loads((folder / "pluralign.json").read_text())["losses"]
    assert all(late < early for early, late in pairwise(np.mean(np.split(np.array(losses), 4), axis=1)))

    dialogues = write_dialogues(400, seed=99)
    prompts, responses = zip(*dialogues, strict=True)
    loss = []
    with torch.no_grad():
        for prompt, response in dialogues:
            begin, rest = tokenizer(prompt)["input_ids"], [*tokenizer(response)["input_ids"], tokenizer.eos_token_id]
            logits = model(torch.tensor([begin + rest])).logits[0, len(begin) - 1 : -1]
            loss.append(torch.nn.functional.cross_entropy(logits, torch.tensor(rest), reduction="sum").item())
    gap = np.array(loss) + answer_log_prob(prompts, responses)  # nats in each answer above the generator's own
    assert 0 < gap.mean() < 0.6

    greedy = parse_styles(prompts, generate(model, tokenizer, prompts, do_sample=False))
    assert (greedy >= 0).mean() > 0.95
    torch.manual_seed(0)
    sampled = parse_styles(prompts, generate(model, tokenizer, prompts, do_sample=True))
    assert (sampled >= 0).mean() > 0.75
    shares = np.bincount(sampled[sampled >= 0], minlength=4) / (sampled >= 0).sum()
    assert shares.min() > 0.15
    assert shares.max() < 0.35
