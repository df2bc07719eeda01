"""Errors on the command line: what is wrong, the way out, exit code 2, and no traceback."""

import pytest


@pytest.fixture
def fails(run):
    def check(*arguments: object) -> str:
        done = run(*arguments)
        assert done.code == 2
        assert done.out == ""
        assert "Traceback" not in done.err
        return done.err

    return check


def lines(err: str) -> list[str]:
    """The lines from `error:` on; before them stand the steps."""
    found = err.splitlines()
    return found[next(i for i, line in enumerate(found) if line.startswith("error: ")) :]


def test_unknown_data(fails):
    error, hint = lines(fails("fit", "jestr"))
    assert error.startswith('error: "jestr" is neither a file nor a data set; known sets: simulated, ')
    assert hint == 'hint: for a data set on the hub write "hf:organisation/name"'


def test_a_missing_column(fails, texts, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(texts.read_text().replace('"user":', '"worker":'))
    error, hint = lines(fails("study", file))
    assert "has no column user" in error
    assert "worker" in hint


def test_a_column_that_is_no_assignment(fails, texts):
    assert lines(fails("fit", texts, "--column", "user")) == ['error: --column is "user"; it must be name=value']


def test_an_option_the_data_do_not_have(fails, texts):
    assert 'error: "simulated" has no option "n_user"; it has n_users, ' in fails(
        "fit", "simulated", "--option", "n_user=3"
    )
    assert 'a table of rows has no option "gap"; it has ' in fails("fit", texts, "--option", "gap=3")


def test_an_encoder_that_does_not_exist(fails, texts):
    assert 'error: unknown encoder "bert"; known: ' in fails("fit", texts, "--encoder", "bert")


def test_what_learns_from_training_rows_is_not_encoded_ahead(fails, texts, tmp_path):
    error, hint = lines(fails("encode", texts, "--encoder", "tfidf", "--cache", tmp_path))
    assert error.startswith("error: tfidf learns from the training rows")
    assert "style" in hint


@pytest.mark.parametrize("command", ["evaluate", "adapt"])
def test_a_folder_without_a_model(fails, numbers, tmp_path, command):
    error, hint = lines(fails(command, tmp_path, numbers))
    assert "holds no reward model: there is no reward.json" in error
    assert "`pluralign fit --out`" in hint


@pytest.mark.parametrize("file", ["pluralign.json", "clusters.json"])
def test_a_language_model_places_nobody(fails, numbers, tmp_path, file):
    (tmp_path / file).write_text("{}")
    assert f"error: {tmp_path} holds a language model; a reward on frozen features" in fails("adapt", tmp_path, numbers)


def test_a_model_of_other_features(fails, run, numbers, tmp_path):
    run("fit", numbers, "--out", tmp_path / "model")
    run("simulate", tmp_path / "panel", "--features", "numeric", "--dim", 5, "--users", 3, "--comparisons", 5)
    assert "features have 5 columns; the standardizer knows 3" in fails(
        "evaluate", tmp_path / "model", tmp_path / "panel"
    )


def test_settings_of_another_user_model(fails, numbers):
    assert lines(fails("fit", numbers, "--clusters", 2)) == [
        "error: clusters is for cluster, and the user model is pooled"
    ]
    assert 'error: unknown user model "clusters"; known: pooled, ' in fails("fit", numbers, "--users", "clusters")


def test_flags_that_the_data_have_no_use_for(fails, run, texts, tmp_path):
    assert run("fit", texts, "--encoder", "style", "--ridge", 1, "--out", tmp_path).code == 0
    assert 'path is "nowhere", and a table of rows has no use for it' in fails("study", texts, "--path", "nowhere")
    assert 'path is "nowhere", and a table of rows' in fails("ask", tmp_path, texts, "--path", "nowhere")
    assert 'columns are given (user), and "swiss" has no use' in fails("study", "swiss", "--column", "user=foo")


@pytest.mark.parametrize("arguments", [("study",), ("fit",)])
def test_a_file_where_results_should_go(fails, numbers, tmp_path, arguments):
    file = tmp_path / "file"
    file.write_text("")
    for flag, place in (("--out", file), ("--out", file / "below"), ("--cache", file)):
        done = fails(*arguments, numbers, flag, place)
        assert lines(done)[0] == f"error: {flag} is {place}, and {file} is a file"
        assert "read the comparisons" not in done


@pytest.mark.parametrize("arguments", [("study", "--out"), ("fit", "--out"), ("encode", "--cache"), ("simulate",)])
def test_a_folder_that_may_not_be_written_to(fails, numbers, tmp_path, monkeypatch, arguments):
    monkeypatch.setattr("os.access", lambda place, mode: False)
    command, *flag = arguments
    data, place = ([], tmp_path / "new" / "rows.jsonl") if command == "simulate" else ([numbers], tmp_path / "new")
    done = fails(command, *data, *flag, place)
    folder = tmp_path / "new"
    assert lines(done)[0] == f"error: {(flag or ['OUT'])[0]} is {folder}, and {tmp_path} may not be written to"
    assert "read the comparisons" not in done


def test_a_simulation_into_a_file(fails, texts):
    assert f"OUT is {texts}, and {texts} is a file" in fails("simulate", texts / "rows.jsonl")


@pytest.mark.parametrize("seed", [-1, 2**31])
@pytest.mark.parametrize(
    "arguments", [("study", "simulated"), ("fit", "simulated"), ("scan", "simulated"), ("simulate", "x.jsonl")]
)
def test_a_seed_that_no_generator_begins_at(fails, arguments, seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "Invalid value for '--seed'" in fails(*arguments, "--seed", seed)


@pytest.mark.parametrize("command", ["study", "fit", "encode"])
def test_a_device_that_is_not_here(fails, numbers, command):
    for device in ("banana", "cuda:99"):
        done = fails(command, numbers, "--device", device)
        assert lines(done)[0].startswith(f'error: --device is "{device}", which is not here; accepted here: cpu')
        assert "read the comparisons" not in done


def test_a_study_of_nothing_but_ties(fails, texts, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(texts.read_text().replace('"user":', '"outcome": 0.5, "user":'))
    done = fails("study", file)
    assert "rows are ties (outcome 0.5): nothing was preferred to anything" in done
    assert "fit the ladder" not in done


def test_only_a_pooled_model_is_compared_with(fails, run, numbers, tmp_path):
    arguments = ("--users", "cluster", "--clusters", 2, "--ridge", 1, "--starts", 2)
    assert run("fit", numbers, *arguments, "--out", tmp_path).code == 0
    error, hint = lines(fails("evaluate", tmp_path, numbers, "--pooled", tmp_path))
    assert error == f"error: --pooled is {tmp_path}, which holds a model of kind cluster; it must be a pooled one"
    assert "OUT/models/pooled" in hint


def test_an_unknown_setting_in_a_file(fails, numbers, tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text("seed_count: 3\n")
    assert 'error: unknown setting "seed_count"; known: clusters, ' in fails("study", numbers, "--config", config)


@pytest.mark.parametrize("command", ["encode", "fit", "evaluate", "adapt", "simulate"])
def test_an_unknown_flag_in_a_file(fails, tmp_path, command):
    config = tmp_path / "flags.yaml"
    config.write_text("seedling: 3\n")
    assert f'error: {config} has "seedling"; known: ' in fails(command, "--config", config)


def test_a_flag_of_another_kind_in_a_file(fails, numbers, tmp_path):
    config = tmp_path / "flags.yaml"
    config.write_text("users: cluster\nclusters: two\n")
    assert "Invalid value for '--clusters'" in fails("fit", numbers, "--config", config)


def test_an_unknown_rung(fails, numbers):
    assert 'error: unknown rung "vpl"; known: pooled, ' in fails("study", numbers, "--rungs", "pooled,vpl")


def test_a_simulation_that_its_file_cannot_hold(fails, tmp_path):
    assert "cannot hold text features" in fails("simulate", tmp_path / "users.csv")
    assert "cannot hold numeric features" in fails("simulate", tmp_path / "users.jsonl", "--features", "numeric")
    assert 'error: --shares is "a,b"; it must be numbers' in fails("simulate", tmp_path / "u.jsonl", "--shares", "a,b")
    assert "unknown kind" in fails("simulate", tmp_path / "u.jsonl", "--kind", "camps")


def test_an_unknown_flag_is_typers_to_refuse(run):
    done = run("study", "simulated", "--seedz", "3")
    assert done.code == 2
    assert "No such option" in done.err
