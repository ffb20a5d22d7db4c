"""Settings of `amphora serve`: typed, in the environment, in a file, and by default."""

from __future__ import annotations

from pathlib import Path

import pytest

from amphora.cli.failures import Exit
from amphora.cli.serving.config import misspelt_variables
from amphora.cli.serving.serve import serve
from tests.cli.conftest import PROGRAMS, Amphora, Serve, wait_for_workers
from tests.support.processes import ROOT


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "amphora.toml"
    path.write_text(
        "[serve]\n"
        "programs = ['shop.orders', 'shop.billing']\n"
        "workers = 4\n"
        "grace = 2.5\n"
        "max_requests = 1000\n"
        "max-memory = '1.5G'\n"
        "access-log = true\n"
        "url = 'amqp://anna:sesame@rabbit.example.org/shop'\n"
    )
    return path


def shown(amphora: Amphora, *words: object) -> dict[str, tuple[str, str]]:
    """Return the value of each setting, and where it comes from."""
    outcome = amphora("serve", *words, "--show-config")
    assert (outcome.code, outcome.err) == (Exit.DONE, "")
    assert "sesame" not in outcome.out
    heads, *lines = outcome.out.splitlines()
    assert heads.split() == ["setting", "value", "from"]
    cells = [[cell.strip() for cell in line.split("  ") if cell] for line in lines]
    return {name: (value, source) for name, value, source in cells}


def test_what_is_typed_counts_more_than_the_environment_and_that_more_than_the_file(
    amphora_anywhere: Amphora, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMPHORA_GRACE", "3")
    monkeypatch.setenv("AMPHORA_MAX_REQUESTS", "2000")
    monkeypatch.setenv("AMPHORA_PATCH", "true")
    settings = shown(amphora_anywhere, "--config", file, "--grace", 7)
    given = {name: value for name, value in settings.items() if value[1] != "default"}
    assert given == {
        "programs": ("shop.orders shop.billing", str(file)),
        "workers": ("4", str(file)),
        "grace": ("7.0", "command line"),
        "max-requests": ("2000", "AMPHORA_MAX_REQUESTS"),
        "max-memory": ("1536M", str(file)),
        "access-log": ("true", str(file)),
        "patch": ("true", "AMPHORA_PATCH"),
        "url": ("amqp://anna:***@rabbit.example.org:5672/shop", str(file)),
    }
    assert settings["log-level"] == ("info", "default")
    assert settings["pidfile"] == ("-", "default")
    assert shown(amphora_anywhere, "other", "--config", file)["programs"] == (
        "other",
        "command line",
    )


def test_the_environment_may_name_the_programs(
    amphora_anywhere: Amphora, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMPHORA_PROGRAMS", "shop.orders shop.returns:make")
    named = ("shop.orders shop.returns:make", "AMPHORA_PROGRAMS")
    assert shown(amphora_anywhere)["programs"] == named
    assert shown(amphora_anywhere, "--config", file)["programs"] == named
    assert shown(amphora_anywhere, "other")["programs"] == ("other", "command line")


def test_a_variable_that_is_not_read_is_told_if_a_setting_may_be_meant() -> None:
    variables = [
        "AMPHORA_WORKERS",
        "AMPHORA_WORKER",
        "AMPHORA_MAX_REQUEST",
        "AMPHORA_URL",
        "AMPHORA_PROGRAMS",
        "AMPHORA_CONFIG",
        # Of another program, and of a service of that name in Kubernetes.
        "AMPHORA_GATEWAY_TOKENS",
        "AMPHORA_SERVICE_HOST",
        "AMPHORA_PORT",
        "WORKER",
        "AMQP_URL",
    ]
    with serve.make_context("serve", ["shop"]) as context:
        assert list(misspelt_variables(context, variables)) == [
            "AMPHORA_MAX_REQUEST in the environment is not a setting; did you mean 'max_requests'?",
            "AMPHORA_URL in the environment is not read: AMQP_URL is",
            "AMPHORA_WORKER in the environment is not a setting; did you mean 'workers'?",
        ]


def test_the_environment_may_name_the_file(
    amphora_anywhere: Amphora, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMPHORA_CONFIG", str(file))
    assert shown(amphora_anywhere)["workers"] == ("4", str(file))


def test_the_broker_has_one_variable_and_may_be_named_first(
    amphora_anywhere: Amphora, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMPHORA_URL", "amqp://not.this")
    monkeypatch.setenv("AMQP_URL", "amqp://from.environment")
    shown_urls = [
        shown(amphora_anywhere, "--config", file)["url"],
        shown(amphora_anywhere, "--config", file, "--url", "amqp://typed")["url"],
    ]
    outcome = amphora_anywhere(
        "--url", "amqp://first", "--debug", "serve", "--config", file, "--show-config"
    )
    assert shown_urls == [
        ("amqp://guest:***@from.environment:5672/", "AMQP_URL"),
        ("amqp://guest:***@typed:5672/", "command line"),
    ]
    assert "amqp://first" not in outcome.err
    (url,) = (line.split() for line in outcome.out.splitlines() if line.startswith("url"))
    assert url[1] == "amqp://guest:***@first:5672/"
    (debug,) = (line.split() for line in outcome.out.splitlines() if line.startswith("debug"))
    assert debug == ["debug", "true", "command", "line"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[serve]\nworkres = 4", "'workres', which is not a setting; did you mean 'workers'?"),
        ("[serve]\nconfig = 'x'", "'config', which is not a setting"),
        ("[serve]\nworkers = true", "workers cannot be True"),
        ("[serve]\nreload = 'yes'", "reload cannot be 'yes'"),
        ("[serve]\nprograms = [1]", "programs cannot be [1]"),
        ("[serve]\nworkers = 'four'", "workers in wrong.toml: 'four' is not a valid whole number."),
        ("[serve]\ngrace = nan", "grace in wrong.toml: nan is not a number"),
        ("[serve]\nmax_memory = '300'", "max-memory in wrong.toml: '300' is not a size"),
        ("workers = 4", "must have its settings in a table [serve]"),
        ("serve = 4", "must have its settings in a table [serve]"),
        ("[serve", "cannot be read: "),
    ],
)
def test_what_is_wrong_in_a_file_is_wrong_usage(
    amphora_anywhere: Amphora, tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    outcome = amphora_anywhere("serve", "x", "--config", file)
    assert outcome.code == Exit.USAGE
    assert complaint in outcome.err.replace(str(file), file.name)


def test_a_file_that_is_not_there_and_a_wrong_variable_are_wrong_usage(
    amphora_anywhere: Amphora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = amphora_anywhere("serve", "x", "--config", tmp_path / "none.toml")
    assert (outcome.code, "No such file" in outcome.err) == (Exit.USAGE, True)
    monkeypatch.setenv("AMPHORA_WORKERS", "many")
    outcome = amphora_anywhere("serve", "x", "--show-config")
    assert (outcome.code, "AMPHORA_WORKERS: 'many'" in outcome.err) == (Exit.USAGE, True)
    outcome = amphora_anywhere("serve", "x", "--show-config", "--workers", "few")
    assert "'--workers': 'few'" in outcome.err
    monkeypatch.delenv("AMPHORA_WORKERS")
    outcome = amphora_anywhere("serve", "x", "--show-config", "--url", "http://anna:sesame@x")
    assert (outcome.code, "must begin with amqp://" in outcome.err) == (Exit.USAGE, True)
    assert "sesame" not in outcome.err


def test_the_example_is_valid(amphora_anywhere: Amphora) -> None:
    settings = shown(amphora_anywhere, "--config", ROOT / "examples" / "deploy" / "amphora.toml")
    assert settings["programs"][0] == "examples.math.server"


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_a_pool_runs_as_its_file_says(serve: Serve, url: str, tmp_path: Path) -> None:
    file = tmp_path / "amphora.toml"
    file.write_text(f"[serve]\nworkers = 2\nlog-level = 'debug'\nurl = {url!r}\n")
    pool = serve("--config", file, cwd=PROGRAMS, env={"AMQP_URL": "", "AMPHORA_GRACE": "17"})
    wait_for_workers(pool, 2)
    pool.terminate()
    assert pool.wait() == Exit.DONE
    assert "workers have 17 s to finish" in pool.output
